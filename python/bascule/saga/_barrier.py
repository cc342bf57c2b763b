"""Keeps a step's action and compensation apart where they take effect: in the service's own database.

A network may deliver a compensation before its action, an action after its compensation, and either
twice. A row in the transaction of the change itself tells which of these a call is.
Source: DTM, "Sub-transaction barrier" (https://en.dtm.pub/practice/barrier.html), where the three are
called empty compensation, hanging and duplicate request.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from bascule.errors import RpcError, Status

if TYPE_CHECKING:
    from bascule.saga._call import SagaCall
    from bascule.saga._definition import StepCall

__all__ = ["LateActionError", "SqlBarrier"]


class LateActionError(RpcError):
    """The action of a step came after its compensation: it must not be done any more. ABORTED."""

    def __init__(self, key: str) -> None:
        super().__init__(Status.ABORTED, f"step {key} has been undone: it cannot be done any more")


class SqlBarrier:
    """Tells whether a step's action or compensation is to take effect.

    >>> BARRIER = SqlBarrier(barrier_table(METADATA))
    >>> def charge(connection):
    ...     if BARRIER.admits(connection, call):
    ...         connection.execute(insert_the_payment)
    ...     return connection.execute(select_the_payment).one()

    :param table: made by :func:`barrier_table`, in the database that the change is made in
    """

    def __init__(self, table: sa.Table) -> None:
        self._table = table
        self._inserts = {
            "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
            "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
            # What is to be ignored is the duplicate, which leaves the row as it is.
            "mysql": mysql.insert(table).prefix_with("IGNORE"),
        }
        self._inserts["mariadb"] = self._inserts["mysql"]
        self._undo = (
            sa.update(table)
            .where(
                table.c.saga_id == sa.bindparam("of"),
                table.c.step == sa.bindparam("which"),
                table.c.state == "done",
            )
            .values(state="undone")
        )
        self._state = sa.select(table.c.state).where(
            table.c.saga_id == sa.bindparam("of"), table.c.step == sa.bindparam("which")
        )

    def admits(self, connection: sa.Connection, call: SagaCall | StepCall) -> bool:
        """Tell whether to make the change that a call asks for, in the transaction of the connection.

        False means that there is nothing to do: it has been done before, or a compensation has nothing
        to undo. Answer as if it had been done now. Calls about one step wait for each other.

        :param call: what :func:`saga_call` gave, or a step's own call
        :raises LateActionError: if the step was undone before its action came: make no change
        """
        if call.op == "action":
            if self._insert(connection, call, "done"):
                return True
            state = connection.execute(
                self._state, {"of": call.saga_id, "which": call.step}
            ).scalar_one()
            if state != "done":
                raise LateActionError(f"{call.saga_id}/{call.step}")
            return False
        if self._insert(connection, call, "empty"):
            return False
        undone = connection.execute(self._undo, {"of": call.saga_id, "which": call.step})
        return bool(undone.rowcount == 1)

    def forget(self, connection: sa.Connection, *, older_than: float) -> int:
        """Delete what was noted long ago; give how much.

        :param older_than: seconds; longer than any saga may take, parked ones included
        """
        before = round((time.time() - older_than) * 1e6)
        return connection.execute(sa.delete(self._table).where(self._table.c.at < before)).rowcount

    def _insert(self, connection: sa.Connection, call: SagaCall | StepCall, state: str) -> bool:
        row: dict[str, Any] = {
            "saga_id": call.saga_id,
            "step": call.step,
            "state": state,
            "at": round(time.time() * 1e6),
        }
        return bool(connection.execute(self._inserts[connection.dialect.name], row).rowcount == 1)

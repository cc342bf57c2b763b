"""In what databases differ: how to connect, and what their errors mean."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

__all__ = ["Fault", "Timeouts", "beginner", "create_engine", "fault_of", "read_url", "shown"]

#: The drivers that are meant where a URL names none.
_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
_EXTRAS = {"pymysql": "'bascule[mysql]'", "psycopg": "'psycopg[binary]'"}

#: Seconds more than a statement may take, after which a server that says nothing counts as lost.
_SILENCE = 5.0
#: Virtual-machine steps of SQLite between two looks at the clock: some milliseconds.
_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. See :class:`Database`."""

    connect: float
    statement: float
    lock: float


class Fault(Enum):
    """What an error of a driver means for the transaction that met it."""

    CONTENDED = "contended"
    LOST = "lost"
    SLOW = "slow"


# MariaDB: server error reference. 1020 record changed since read, 1205 lock wait time-out, 1213 deadlock.
_MYSQL = {
    1020: Fault.CONTENDED,
    1205: Fault.CONTENDED,
    1213: Fault.CONTENDED,
    1053: Fault.LOST,  # shutdown in progress
    1317: Fault.SLOW,  # interrupted
    1927: Fault.LOST,  # connection was killed
    1969: Fault.SLOW,  # max_statement_time
    3024: Fault.SLOW,  # max_execution_time
}
# PostgreSQL: appendix A. 40001 serialization failure, 40P01 deadlock, 55P03 lock not available.
_POSTGRES = {
    "40001": Fault.CONTENDED,
    "40P01": Fault.CONTENDED,
    "55P03": Fault.CONTENDED,
    "25P03": Fault.LOST,  # idle in transaction for too long
    "57014": Fault.SLOW,  # statement time-out
    "57P01": Fault.LOST,  # admin shutdown
    "57P02": Fault.LOST,
    "57P03": Fault.LOST,
}
# SQLite: primary result codes. 5 busy, 6 locked, 9 interrupted.
_SQLITE = {5: Fault.CONTENDED, 6: Fault.CONTENDED, 9: Fault.SLOW}


def fault_of(dialect: str, error: sa.exc.DBAPIError) -> Fault | None:
    """Tell what an error means; None if it is the statement's own fault."""
    origin = error.orig
    fault: Fault | None = None
    match dialect:
        case "sqlite":
            fault = _SQLITE.get(getattr(origin, "sqlite_errorcode", 0) & 0xFF)
        case "mysql":
            code = origin.args[0] if origin is not None and origin.args else None
            fault = _MYSQL.get(code) if isinstance(code, int) else None
        case "postgresql":
            fault = _POSTGRES.get(getattr(origin, "sqlstate", None) or "")
    return Fault.LOST if fault is None and error.connection_invalidated else fault


def read_url(url: str | sa.URL) -> sa.URL:
    """Read a URL and complete its driver.

    :raises ConfigurationError: if it cannot be read; the message does not repeat it
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The cause would show pieces of the URL, its password among them.
        raise ConfigurationError(
            "the database's URL cannot be read: it looks like sqlite:///file or"
            " mysql://user:password@host/name, with @ : / % in a password written as %40 %3A %2F %25"
        ) from None
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError(
            "SQLite needs a file, as in sqlite:///path/to/file: in memory, each connection would have"
            " a database of its own"
        )
    return parsed


def shown(url: sa.URL) -> str:
    """Give a URL as messages and metrics may show it: without user, password and options."""
    safe = sa.URL.create(
        url.get_backend_name(), host=url.host, port=url.port, database=url.database
    )
    return safe.render_as_string()


def create_engine(url: sa.URL, connections: int, timeouts: Timeouts) -> sa.Engine:
    """Make an engine whose pool never waits and whose connections time out.

    :raises ConfigurationError: if the driver is not known or not installed
    """
    dialect = url.get_backend_name()
    try:
        engine = sa.create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            # Permits keep the pool from being asked for more than it has.
            pool_timeout=timeouts.connect,
            # Whoever borrows a connection commits or rolls back: another ROLLBACK were a round trip more.
            pool_reset_on_return=None,
            # A password's hash or an address is nobody's business who reads logs.
            hide_parameters=True,
            connect_args=_connect_args(dialect, timeouts),
        )
    except ModuleNotFoundError as error:
        driver = url.get_driver_name()
        wanted = _EXTRAS.get(driver, driver)
        raise ConfigurationError(
            f"{shown(url)} needs the library {driver}: pip install {wanted}"
        ) from error
    except sa.exc.NoSuchModuleError:
        raise ConfigurationError(
            f"no database is called {url.drivername!r}: use sqlite, mysql, mariadb or postgresql"
        ) from None
    if dialect == "sqlite":
        _prepare_sqlite(engine)
    elif dialect == "mysql":
        _prepare_mysql(engine, timeouts)
    return engine


def beginner(dialect: str, timeouts: Timeouts) -> Callable[[sa.Connection, bool], None]:
    """Make what a transaction does first, given whether it writes.

    An engine's ``begin`` event would do as well, but SQLAlchemy then looks for listeners at every turn:
    a small transaction takes 86 us with one, 60 us without.
    """
    if dialect != "sqlite":
        return lambda _connection, _writes: None
    patience = timeouts.lock + timeouts.statement

    def begin(connection: sa.Connection, writes: bool) -> None:
        connection.info["deadline"] = time.monotonic() + patience
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return begin


def _connect_args(dialect: str, timeouts: Timeouts) -> Mapping[str, Any]:
    match dialect:
        case "sqlite":
            return {"timeout": timeouts.lock}
        case "mysql":
            # A server that vanished without a word is noticed by its silence.
            silence = timeouts.statement + _SILENCE
            return {
                "connect_timeout": timeouts.connect,
                "read_timeout": silence,
                "write_timeout": silence,
                "charset": "utf8mb4",
            }
        case "postgresql":
            settings = {
                "statement_timeout": timeouts.statement,
                "lock_timeout": timeouts.lock,
                "idle_in_transaction_session_timeout": timeouts.statement + _SILENCE,
            }
            return {
                "connect_timeout": math.ceil(timeouts.connect),
                "tcp_user_timeout": round((timeouts.statement + _SILENCE) * 1_000),
                "options": " ".join(
                    f"-c {name}={round(seconds * 1_000)}" for name, seconds in settings.items()
                ),
            }
        case _:
            return {}


def _prepare_mysql(engine: sa.Engine, timeouts: Timeouts) -> None:
    # READ COMMITTED: the default takes locks on gaps, which makes writers of different rows wait. STRICT:
    # a text that is too long is an error, not cut off. MariaDB alone runs /*M!, MySQL alone runs /*!5.
    settings = (
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        f"SET SESSION innodb_lock_wait_timeout = {max(1, math.ceil(timeouts.lock))}",
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
        f"/*M!100101 SET SESSION max_statement_time = {timeouts.statement:.3f} */",
        f"/*!50708 SET SESSION max_execution_time = {math.ceil(timeouts.statement * 1_000)} */",
    )

    def connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(setting)

    def failed(context: sa.ExceptionContext) -> None:
        # Codes that SQLAlchemy does not count as the end of a connection.
        error = context.sqlalchemy_exception
        if isinstance(error, sa.exc.DBAPIError) and fault_of("mysql", error) is Fault.LOST:
            context.is_disconnect = True

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "handle_error", failed)


def _prepare_sqlite(engine: sa.Engine) -> None:
    def connected(connection: sqlite3.Connection, record: Any) -> None:
        # The driver must not begin transactions by itself: it would do so at the first write, when a
        # reader may no longer become the writer.
        connection.isolation_level = None
        # A commit survives the end of the process; one that must survive a power cut needs FULL.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        info = record.info
        info["deadline"] = math.inf
        connection.set_progress_handler(lambda: time.monotonic() > info["deadline"], _STEPS)

    sa.event.listen(engine, "connect", connected)

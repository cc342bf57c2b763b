"""What a database counts about its connections."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DatabaseStats"]


@dataclass(slots=True)
class DatabaseStats:
    """Counted by a :class:`Database`, rendered by :meth:`bascule.observe.Metrics.add_database`.

    :ivar name: the database, without its password
    :ivar size: transactions that may run at a time
    :ivar in_use: transactions running now
    :ivar waiting: transactions waiting for a connection now
    :ivar timeouts: transactions that waited for a connection in vain
    :ivar reruns: transactions run again after a deadlock, a lock's time-out or a lost connection
    :ivar lost: connections that broke in a transaction
    :ivar unknown: transactions whose connection broke during COMMIT
    """

    name: str
    size: int
    in_use: int = 0
    waiting: int = 0
    timeouts: int = 0
    reruns: int = 0
    lost: int = 0
    unknown: int = 0

"""The last good list of a service on disk, for a start while Consul is away."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from bascule._files import replace_file
from bascule.discovery._endpoint import Endpoint
from bascule.discovery.consul._instances import is_callable
from bascule.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["DiskCache"]

logger = logging.getLogger("bascule.discovery")

#: Bytes of a file that are read; more was not written here.
LARGEST = 16 * 1024 * 1024


class _Entry(msgspec.Struct):
    address: str
    weight: int
    metadata: dict[str, str]
    authority: str | None


class _File(msgspec.Struct):
    version: int
    saved_at: float
    endpoints: list[_Entry]


class DiskCache:
    """One file. It is replaced as a whole, so that whoever reads it finds all of a list or none.

    :param most_age: seconds after which a list is not believed any more: its addresses may belong to
        others
    """

    def __init__(self, path: Path, *, most_age: float) -> None:
        self._path = path
        self._most_age = most_age

    def load(self) -> tuple[tuple[Endpoint, ...], float] | None:
        """The list and its age in seconds; None if there is none to believe."""
        try:
            if self._path.stat().st_size > LARGEST:
                logger.warning("%s is too large for a list of instances: not read", self._path)
                return None
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
            age = max(time.time() - file.saved_at, 0.0)
            if file.version != 1 or age > self._most_age:
                return None
            return tuple(_endpoint(each) for each in file.endpoints), age
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("%s holds no list of instances: %s", self._path, error)
            return None

    def save(self, endpoints: Sequence[Endpoint]) -> None:
        """Write the list; a disk that fails costs the list on disk, nothing else."""
        entries = [
            _Entry(each.address, each.weight, dict(each.metadata), each.authority)
            for each in endpoints
        ]
        content = msgspec.json.encode(_File(1, time.time(), entries))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, content)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)


def _endpoint(entry: _Entry) -> Endpoint:
    where = parse_address(entry.address)
    if where.kind != "tcp" or not is_callable(where.host, where.port):
        message = f"no service is called at {entry.address}"
        raise ValueError(message)
    return Endpoint(entry.address, entry.weight, entry.metadata, entry.authority)

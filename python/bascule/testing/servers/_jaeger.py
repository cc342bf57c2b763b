"""Jaeger, which keeps traces and shows them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from bascule.testing.servers._http import get
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["JaegerServer"]

#: Traces that it keeps, in memory: older ones are forgotten.
MOST_TRACES = 10_000


class JaegerServer(LocalServer):
    """A Jaeger in one process. It keeps traces in memory: a restart forgets them."""

    program: ClassVar[str] = "jaeger"
    hint: ClassVar[str] = (
        "`python3 scripts/provision.py jaeger` in a checkout of bascule, "
        "or Jaeger 1.x's all-in-one from https://www.jaegertracing.io/download"
    )
    port_count: ClassVar[int] = 8

    @property
    def url(self) -> str:
        """Of its pages and of its API."""
        return f"http://{self.address}"

    @property
    def endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self.ports[1]}"

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Give a trace as its API does: ``spans`` and ``processes``; None if it knows of none."""
        return self._first(f"/api/traces/{trace_id}")

    def _first(self, path: str) -> dict[str, Any] | None:
        text = get(self.port, path)
        found = msgspec.json.decode(text)["data"] if text else None
        return found[0] if found else None

    def _command(self, program: Path) -> list[str]:
        names = (
            *("query.http-server", "collector.otlp.http", "collector.otlp.grpc"),
            *("query.grpc-server", "collector.http-server", "collector.grpc-server"),
            *("http-server", "admin.http"),
        )
        command = [str(program), "--log-level=warn", f"--memory.max-traces={MOST_TRACES}"]
        command += [
            f"--{name}.host-port=127.0.0.1:{port}"
            for name, port in zip(names, self.ports, strict=True)
        ]
        # What nobody sends to need not have a known port.
        for name in ("jaeger-binary", "jaeger-compact", "zipkin-compact"):
            command.append(f"--processor.{name}.server-host-port=127.0.0.1:0")
        return command

    def _environment(self) -> Mapping[str, str]:
        # Its own spans would be among those of the test.
        given = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        return given | {"OTEL_TRACES_SAMPLER": "always_off"}

    def _answers(self) -> bool:
        return (
            get(self.port, "/api/services") is not None
            # It takes POST only: that it says so shows that it is there.
            and get(self.ports[1], "/") is None
        )

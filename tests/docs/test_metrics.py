"""The samples of docs/how-to/metrics.md work as they stand there."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session, load


def test_the_samples() -> None:
    shown = load("docs/how-to/metrics.md")
    assert b'circuit_breaker_state{name="mail"} 0.0' in shown.text


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "order-metrics"
    folder.mkdir()
    with Session(tmp_path) as session:
        session.replace("/run/order-metrics", str(folder))
        session.walk("docs/how-to/metrics.md")
    assert not folder.exists()

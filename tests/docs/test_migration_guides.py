"""The programs of the migration guides run, and print what the guides say."""

from __future__ import annotations

from pathlib import Path

from tests.pages import Session


def test_from_grpclib(tmp_path: Path) -> None:
    with Session(tmp_path, ports=(50051,)) as session:
        session.walk("docs/how-to/migrate-from-grpclib.md")


def test_from_grpcio(tmp_path: Path) -> None:
    with Session(tmp_path, ports=(50051,)) as session:
        session.walk("docs/how-to/migrate-from-grpcio.md")

"""The samples of docs/how-to/tracing.md work as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import Session, load

load("docs/how-to/tracing.md", globals())

pytestmark = pytest.mark.anyio


def test_a_collector_that_is_away_disturbs_nobody(tmp_path: Path, greeter: list[Path]) -> None:
    with Session(tmp_path, ports=(50051, 4318)) as session:
        session.give(*greeter)
        session.walk("docs/how-to/tracing.md", background={"bascule serve": "ready"})
        said = session.run("""bascule call 127.0.0.1:50051 greet.Greeter/Hello '{"name": "Ada"}'""")
    assert said == '{"message": "Hello Ada"}\n'

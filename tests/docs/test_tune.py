"""The samples of docs/how-to/tune.md work as they stand there."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

page = load("docs/how-to/tune.md", globals())


@pytest.fixture
def _collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_collector")
async def test_the_settings_can_work(capsys: pytest.CaptureFixture[str]) -> None:
    await page.main()
    assert capsys.readouterr().out == "serving\n"
    assert page.limits.max_calls == 2_000
    assert page.make_channel().target == "dns:///users.internal:50051"

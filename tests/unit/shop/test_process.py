"""One service of the shop as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bascule_shop.process import ProcessSettings, shop_app

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_what_is_opened_again_is_counted_once(tmp_path: Path) -> None:
    """A database that comes and goes must not leave more and more behind in the metrics."""
    settings = ProcessSettings(
        name="order",
        database=f"sqlite:///{tmp_path}/order.db",
        peers={"user": "static:///a:1", "product": "static:///b:1", "payment": "static:///c:1"},
    )
    app = shop_app(settings)
    (resource,) = app.resources
    texts = []
    for _ in range(3):
        async with resource.open():
            texts.append(app.metrics.render()[0].decode())
    sizes = {line for text in texts for line in text.splitlines() if 'state="size"' in line}
    assert len(sizes) == 1, sizes
    assert 'state="size"' not in app.metrics.render()[0].decode()

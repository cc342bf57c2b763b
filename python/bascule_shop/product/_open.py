"""Which store keeps the products: the URL says it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bascule.sql import Database
from bascule_shop.product._store import SqlProductStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bascule.observe import MetricSources
    from bascule_shop.product._store import ProductStore

__all__ = ["is_mongo", "open_product_store"]


def is_mongo(url: str) -> bool:
    """Tell whether a URL is that of a MongoDB."""
    return url.startswith(("mongodb:", "mongodb+srv:"))


@asynccontextmanager
async def open_product_store(
    url: str, metrics: MetricSources | None = None
) -> AsyncIterator[ProductStore]:
    """Open the store of products that a URL names; its tables or collections must exist.

    :param url: ``sqlite:///file``, ``mysql://...``, ``mariadb://...`` or ``mongodb://...``
    :param metrics: what shows its database, if that is an SQL one
    :raises ConfigurationError: if the URL cannot be used
    :raises DatabaseUnavailableError: if a MongoDB cannot be reached: moves of stock that a process left half
        done are finished first
    """
    if is_mongo(url):
        from bascule_shop._mongo import MongoDatabase
        from bascule_shop.product._mongo import MongoProductStore

        async with MongoDatabase(url) as documents:
            store = MongoProductStore(documents)
            await store.tidy()
            yield store
    else:
        async with Database(url) as database:
            if metrics is not None:
                metrics.add_database(database.stats)
            yield SqlProductStore(database)

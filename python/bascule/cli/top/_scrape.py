"""Reads what processes show of themselves to Prometheus."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from bascule.cli._http import ask
from bascule.errors import BasculeError, ConfigurationError, DecodeError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

__all__ = ["Labels", "Scrape", "Series", "metrics_url", "parse", "scrape", "scrape_all"]

#: Names and values, sorted by name.
Labels = tuple[tuple[str, str], ...]

#: Values by the sample's name and its labels.
Series = dict[str, dict[Labels, float]]

#: Samples of one process: a page of more is not for a terminal.
_MOST_SAMPLES = 200_000


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one process said, or why it did not.

    :ivar at: monotonic seconds
    :ivar took: seconds
    :ivar problem: empty if it answered
    """

    url: str
    at: float
    took: float = 0.0
    series: Series = field(default_factory=dict)
    problem: str = ""


def metrics_url(text: str) -> str:
    """Complete an address: http and ``/metrics`` if it says nothing else.

    :raises ConfigurationError: if it is none
    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{text!r}: expected HOST:PORT or http://HOST:PORT/metrics")
    return url if parts.path not in {"", "/"} else f"{url.rstrip('/')}/metrics"


def parse(text: str) -> Series:
    """Read Prometheus' text format.

    :raises DecodeError: if it is none
    """
    from prometheus_client.parser import text_string_to_metric_families

    series: Series = {}
    count = 0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                count += 1
                if count > _MOST_SAMPLES:
                    raise DecodeError(f"more than {_MOST_SAMPLES} samples")
                labels = tuple(sorted(sample.labels.items()))
                series.setdefault(sample.name, {})[labels] = sample.value
    except DecodeError:
        raise
    except Exception as error:  # the parser indexes into whatever it is given
        raise DecodeError(f"no metrics: {error!r:.80}") from error
    return series


async def scrape(client: httpx.AsyncClient, url: str) -> Scrape:
    """Ask one process; what goes wrong is part of the answer."""
    begun = time.monotonic()
    try:
        answer = await ask(client, url)
        if answer.status != 200:
            raise TransportError(f"answers {answer.status}")
        text = answer.body.decode(errors="replace")
        # Thousands of series take some 10 ms: the keyboard should not wait for them.
        series = await anyio.to_thread.run_sync(parse, text)
    except (BasculeError, OSError) as error:
        return Scrape(url, time.monotonic(), problem=str(error) or type(error).__name__)
    at = time.monotonic()
    return Scrape(url, at, at - begun, series)


async def scrape_all(
    client: httpx.AsyncClient, urls: Sequence[str], *, timeout: float
) -> Mapping[str, Scrape]:
    """Ask all processes at once.

    :param timeout: seconds that each has
    """
    found: dict[str, Scrape] = {}

    async def one(url: str) -> None:
        with anyio.move_on_after(timeout):
            found[url] = await scrape(client, url)
            return
        found[url] = Scrape(url, time.monotonic(), problem=f"no answer within {timeout:g} s")

    async with anyio.create_task_group() as tasks:
        for url in urls:
            tasks.start_soon(one, url)
    return found

"""How a subscriber gets its events, whatever bus they came by."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from bascule._backoff import pause_after
from bascule.errors import ConfigurationError
from bascule.events._trace import handling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bascule.events._bus import BatchHandler, Handler
    from bascule.events._event import Event, Topic
    from bascule.events._stats import SubscriberStats
    from bascule.observe import Tracer

__all__ = ["Redelivery", "Subscription"]

_logger = logging.getLogger("bascule.events")


@dataclass(frozen=True, slots=True)
class Redelivery:
    """What becomes of events whose handler raises.

    :ivar attempts: how often a handler is called before the event is put aside
    :ivar first: seconds before the second attempt; each further wait is twice as long, and all are
        shortened at random by up to a half
    :ivar longest: seconds that no wait exceeds
    :raises ConfigurationError: if a value cannot work
    """

    attempts: int = 5
    first: float = 0.1
    longest: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"Redelivery.attempts is {self.attempts}: use 1 or more")
        if not 0 <= self.first <= self.longest < math.inf:
            raise ConfigurationError(
                f"Redelivery waits {self.first} s, at most {self.longest} s: use 0 <= first <= longest"
            )

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return pause_after(failures, self.first, self.longest)


@dataclass(frozen=True)
class Subscription:
    """Who wants a topic's events, and how they are handed over.

    :ivar size: the most events handed over at a time
    """

    topic: Topic[Any]
    name: str
    handler: Handler[Any] | None
    batch_handler: BatchHandler[Any] | None
    size: int
    redelivery: Redelivery
    stats: SubscriberStats
    tracer: Tracer | None

    async def deliver(
        self,
        events: Sequence[Event[Any]],
        put_aside: Callable[[Event[Any], int, Exception], Awaitable[bool]],
    ) -> None:
        """Have events handled in order; return when each is handled or put aside.

        :param put_aside: keeps an event that could not be handled, with the number of attempts and
            the last error; false if there is no room, so that there are more attempts
        """
        if self.batch_handler is not None and len(events) > 1:
            try:
                with handling(events, self.name, self.tracer):
                    await self.batch_handler(events)
            except Exception:
                # One of them is at fault: each by itself, so that the others do not suffer for it.
                _logger.warning(
                    "%s could not handle %d events of %s together: it gets each by itself",
                    self.name,
                    len(events),
                    self.topic.name,
                    exc_info=True,
                )
            else:
                self.stats.handled += len(events)
                return
        for event in events:
            await self._deliver_one(event, put_aside)

    async def _deliver_one(
        self, event: Event[Any], put_aside: Callable[[Event[Any], int, Exception], Awaitable[bool]]
    ) -> None:
        failures = 0
        while True:
            try:
                with handling([event], self.name, self.tracer):
                    if self.handler is not None:
                        await self.handler(event)
                    elif self.batch_handler is not None:
                        await self.batch_handler([event])
            except Exception as error:
                failures += 1
                last = failures >= self.redelivery.attempts
                # Once with its traceback: the further attempts will hardly tell more.
                _logger.log(
                    logging.ERROR if failures == 1 or last else logging.WARNING,
                    "%s could not handle %s %s, attempt %d: %s",
                    *(self.name, event.topic.name, event.id, failures, error),
                    exc_info=error if failures == 1 else None,
                )
                if last and await put_aside(event, failures, error):
                    self.stats.dead_lettered += 1
                    return
            else:
                self.stats.handled += 1
                return
            self.stats.retried += 1
            await anyio.sleep(self.redelivery.wait(failures))

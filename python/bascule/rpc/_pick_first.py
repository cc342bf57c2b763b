"""One connection for all calls: the first endpoint that can be reached."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from bascule.rpc._snapshot import ConnectivityState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bascule.net._link import Driver, Timer
    from bascule.rpc._subchannel import Subchannel

#: gRFC A61: the next endpoint is tried when the one before has not answered for so long, seconds.
ATTEMPT_DELAY = 0.25


class PickFirst:
    """Races the attempts to connect as RFC 8305's "happy eyeballs" does, and keeps the winner.

    It begins when a call needs it. A connection that is lost is not made again before the next
    call.

    Source: gRFC A61 (IPv4 and IPv6 dual-stack), gRFC A62 (shuffling).

    :param connected: called when another subchannel is the one, or none is
    :ivar selected: the one that takes the calls; None if none is connected
    """

    def __init__(self, driver: Driver, connected: Callable[[], None], *, shuffle: bool) -> None:
        self.selected: Subchannel | None = None
        self._driver = driver
        self._connected = connected
        self._shuffle = shuffle
        self._order: list[Subchannel] = []
        self._next = 0
        self._racing = False
        self._timer: Timer | None = None

    @property
    def state(self) -> ConnectivityState:
        """That of the channel."""
        if self.selected is not None:
            return ConnectivityState.READY
        if not self._order or all(each.failure for each in self._order):
            return ConnectivityState.TRANSIENT_FAILURE
        return ConnectivityState.CONNECTING if self._racing else ConnectivityState.IDLE

    def update(self, subchannels: Iterable[Subchannel]) -> None:
        """Take another list. The connection stays if its endpoint does."""
        order = list(subchannels)
        if self._shuffle:
            random.shuffle(order)
        self._order = interleave(order)
        if self.selected is not None:
            if self.selected in order:
                return
            self.selected = None
            self._connected()
            self._racing = True  # calls came until now: the next one should not wait
        if self._racing:
            self._restart()

    def exit_idle(self) -> None:
        """A call needs a connection."""
        if not self._racing and self.selected is None:
            self._racing = True
            self._restart()

    def changed(self, subchannel: Subchannel) -> None:
        """A subchannel has another state."""
        if subchannel.state is ConnectivityState.READY and self._racing:
            self._win(subchannel)
        elif subchannel is self.selected and subchannel.connection is None:
            self.selected = None
            self._connected()
        elif (
            self._racing
            and subchannel.state is ConnectivityState.TRANSIENT_FAILURE
            and self._next > 0
            and subchannel is self._order[self._next - 1]
        ):
            self._attempt()

    def stop(self) -> None:
        """Start no more attempts."""
        self._racing = False
        self._cancel_timer()

    def _restart(self) -> None:
        self._next = 0
        self._attempt()

    def _attempt(self) -> None:
        """Try the next endpoint, and the one after it if that takes long. After the last, each
        goes on by itself as its backoff says.
        """
        self._cancel_timer()
        while self._next < len(self._order):
            subchannel = self._order[self._next]
            self._next += 1
            waits = subchannel.state is ConnectivityState.TRANSIENT_FAILURE
            subchannel.connect()
            if waits:
                continue
            if self._next < len(self._order):
                at = self._driver.now_ns() + int(ATTEMPT_DELAY * 1e9)
                self._timer = self._driver.call_at(at, self._late)
            return

    def _late(self) -> None:
        self._timer = None
        self._attempt()

    def _win(self, subchannel: Subchannel) -> None:
        self._racing = False
        self._cancel_timer()
        self.selected = subchannel
        for other in self._order:
            if other is not subchannel:
                other.release()
        self._connected()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def interleave(subchannels: list[Subchannel]) -> list[Subchannel]:
    """Alternate between address families, beginning with that of the first address.

    Source: RFC 8305 section 4, as gRFC A61 has it.
    """
    families: dict[str, list[Subchannel]] = {}
    for each in subchannels:
        families.setdefault(_family(each.endpoint.address), []).append(each)
    turns = itertools.zip_longest(*families.values())
    return [each for turn in turns for each in turn if each is not None]


def _family(address: str) -> str:
    if address.startswith("["):
        return "ipv6"
    return "other" if address.startswith(("unix:", "memory:")) else "ipv4"

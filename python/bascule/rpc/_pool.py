"""The endpoints of a channel: where they are, which are connected, and which one takes a call."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

import anyio

from bascule.discovery import RefreshableResolver, ResolverState
from bascule.errors import (
    BreakerOpenError,
    ClosedError,
    ConcurrencyLimitedError,
    ConfigurationError,
    NoEndpointError,
    RateLimitedError,
    RpcError,
    Status,
)
from bascule.resilience import endpoint_snapshots, hash_key
from bascule.rpc._call import ABANDONED, Picked, Slot
from bascule.rpc._load_balancing import LOAD_REPORT
from bascule.rpc._pick_first import PickFirst
from bascule.rpc._service_config import ServiceConfig
from bascule.rpc._snapshot import ConnectivityState, ResolverSnapshot, SubchannelSnapshot
from bascule.rpc._subchannel import Subchannel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bascule._core import CallPolicy, Headers
    from bascule.discovery import Endpoint, Resolver
    from bascule.net._link import Driver
    from bascule.resilience import BreakerSettings, ConcurrencyLimit
    from bascule.rpc._load_balancing import LoadBalancing
    from bascule.rpc._subchannel import Terms

logger = logging.getLogger("bascule.rpc")

#: The pauses before a resolver that failed is asked again, in seconds: the first one, the growth
#: and the longest.
RESOLVE_FIRST, RESOLVE_GROWTH, RESOLVE_MOST = 1.0, 1.6, 30.0

#: Endpoints that the text of an error tells of.
MOST_TOLD = 5

#: Verdicts of ``_core.CallPolicy`` by which nothing is sent: what they are counted as, and raise.
REFUSALS = {
    1: ("rate_limited", RateLimitedError),
    2: ("breaker_open", BreakerOpenError),
    4: ("concurrency_limited", ConcurrencyLimitedError),
}


class Pool:
    """Follows a resolver, keeps a subchannel for each endpoint and picks one for each call.

    :ivar config: the service config that holds
    :ivar balancing: how calls are shared now
    """

    def __init__(
        self,
        target: str,
        resolver: Resolver,
        config: ServiceConfig,
        balancing: LoadBalancing,
        breaker: BreakerSettings | None,
        concurrency: ConcurrencyLimit | None,
        *,
        wait_for_ready: bool,
        configured: Callable[[ServiceConfig], None],
    ) -> None:
        self.target = target
        self.resolver = resolver
        self.config = self._own_config = config
        self.subchannels: dict[str, Subchannel] = {}
        #: Calls that wait for a connection.
        self.waiting = 0
        #: Calls refused before anything was sent, by reason.
        self.refused = {reason: 0 for reason, _ in REFUSALS.values()}
        self._own_balancing = balancing
        self._breaker = breaker
        self._concurrency = concurrency
        self._wait_for_ready = wait_for_ready
        self._configured = configured
        self._by_id: dict[int, Subchannel] = {}
        self._document: Any = None
        self._resolved = False
        self._unresolved: str | None = None
        self._updated_ns: int | None = None
        self._following: anyio.CancelScope | None = None
        self._terms: Terms | None = None
        self._changed: anyio.Event | None = None
        self._pick_first: PickFirst | None = None
        self._policy: CallPolicy
        self._set_balancing(config.load_balancing or balancing)

    def open(self, terms: Terms) -> None:
        """Begin to resolve and to connect."""
        self._terms = terms
        self._driver: Driver = terms.driver
        self._set_balancing(self.balancing)
        self._exit_idle()

    def shut(self) -> None:
        """Take no more calls."""
        self._terms = None
        self._policy.update([], self._driver.now_ns())
        for subchannel in self.subchannels.values():
            if subchannel.connection is not None:
                subchannel.connection.machine.shutdown()
                subchannel.connection.link.flush_soon()
        self._wake()

    def clear(self) -> None:
        """Forget what was connected: all of it is closed."""
        self._following = None
        self._forget()

    def _exit_idle(self) -> None:
        """Resolve and connect, if nothing does."""
        if self._following is None:
            self._following = anyio.CancelScope()
            self._driver.spawn(self._follow, self._following)

    def wake_up(self) -> None:
        """A call could come: connect if nothing does."""
        if self._terms is not None:
            self._exit_idle()
            if self._pick_first is not None:
                self._pick_first.exit_idle()

    def enter_idle(self) -> None:
        """Resolve no more and leave all connections. Calls in progress may end."""
        if self._following is not None:
            self._following.cancel()
            self._following = None
        for subchannel in self.subchannels.values():
            subchannel.stop()
        self._forget()
        self._wake()

    @property
    def state(self) -> ConnectivityState:
        """The best that the endpoints have, by gRPC's connectivity semantics document."""
        if self._terms is None:
            return ConnectivityState.SHUTDOWN
        if self._following is None:
            return ConnectivityState.IDLE
        if not self._resolved:
            failed = self._unresolved is not None
            return ConnectivityState.TRANSIENT_FAILURE if failed else ConnectivityState.CONNECTING
        if self._pick_first is not None:
            return self._pick_first.state
        usable = self._usable()
        if any(each.connection for each in usable):
            return ConnectivityState.READY
        if all(each.failure for each in usable):
            return ConnectivityState.TRANSIENT_FAILURE
        return ConnectivityState.CONNECTING

    def pick(
        self,
        now_ns: int,
        metadata: list[tuple[str, Any]] | None,
        avoid: Sequence[int] = (),
        streams: bool = False,
    ) -> tuple[Picked | None, int, int]:
        """Pick a connection and take a permit; where that takes :meth:`admit`, None, and what it has to
        know: the verdict as ``_core.CallPolicy`` gives it, and when to ask again.

        :param avoid: endpoints to pass over if there are others
        :param streams: whether it is for a stream, which no limit of concurrency holds
        """
        policy = self._policy
        while True:
            if avoid or streams:
                ask = policy.admit_stream if streams else policy.admit
                verdict, endpoint, permit, retry_ns = ask(now_ns, self._hash(metadata), None, avoid)
            elif self._hash_header is None:
                verdict, endpoint, permit, retry_ns = policy.admit(now_ns)
            else:
                verdict, endpoint, permit, retry_ns = policy.admit(now_ns, self._hash(metadata))
            if verdict != 0:
                return None, verdict, retry_ns
            subchannel = self._by_id.get(endpoint)
            if subchannel is not None and subchannel.connection is not None:
                return (subchannel.connection, endpoint, permit, policy), verdict, retry_ns
            policy.complete(endpoint, permit, ABANDONED, now_ns)
            policy.set_ready(endpoint, False)

    async def admit(
        self,
        deadline_ns: int | None,
        wait_for_ready: bool | None = None,
        metadata: list[tuple[str, Any]] | None = None,
        avoid: Sequence[int] = (),
        refused: tuple[int, int] | None = None,
        streams: bool = False,
    ) -> Slot:
        """Pick a connection and take a permit, waiting while endpoints connect.

        :param wait_for_ready: wait as well while none can be reached; None: as the channel does
        :param avoid: endpoints to pass over if there are others
        :param refused: what :meth:`pick` has said just now, so that nothing is asked twice
        :param streams: as for :meth:`pick`
        :raises RejectedError: if nothing may be sent
        :raises RpcError: UNAVAILABLE if no endpoint can be reached, DEADLINE_EXCEEDED if
            the deadline comes first
        """
        while True:
            if refused is None:
                picked, verdict, retry_ns = self.pick(
                    self._driver.now_ns(), metadata, avoid, streams
                )
                if picked is not None:
                    return Slot(*picked)
            else:
                (verdict, retry_ns), refused = refused, None
            retry_after = None if retry_ns < 0 else retry_ns / 1e9
            if verdict in REFUSALS:
                # Whoever tries again and again must let the loop turn.
                await anyio.lowlevel.checkpoint()
                reason, refusal = REFUSALS[verdict]
                self.refused[reason] += 1
                raise refusal(self.target, retry_after)
            wait = self._wait_for_ready if wait_for_ready is None else wait_for_ready
            await self._wait_ready_once(deadline_ns, wait)

    def complete(
        self,
        slot: Picked,
        outcome: int,
        trailers: Headers | None = None,
        *,
        stream: bool = False,
    ) -> None:
        """Give a permit back; the trailers may report the server's load.

        :param stream: the call may last as long as it likes without being slow to a breaker
        """
        _, endpoint, permit, policy = slot
        if stream:
            policy.complete_stream(endpoint, permit, outcome, self._driver.now_ns())
        else:
            policy.complete(endpoint, permit, outcome, self._driver.now_ns())
        if trailers is not None and self._weighs:
            report = dict(trailers.items()).get(LOAD_REPORT)
            if isinstance(report, bytes):
                policy.report(endpoint, report, self._driver.now_ns())

    async def wait_change(self) -> None:
        """Wait until a state or the list of endpoints changes.

        :raises ClosedError: if the channel is not open
        """
        if self._terms is None:
            message = f"channel to {self.target} is not open: use it inside its `async with`"
            raise ClosedError(message)
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def reset_backoff(self) -> None:
        """Try endpoints that failed again now."""
        for subchannel in self.subchannels.values():
            subchannel.reset_backoff()

    def activity(self) -> tuple[int, int]:
        """Calls picked so far, and calls in progress or waiting."""
        rows = self._policy.snapshot()
        return sum(row[5] for row in rows), sum(row[3] for row in rows) + self.waiting

    def resolver_snapshot(self) -> ResolverSnapshot:
        """What is known of the resolver."""
        updated_ns = self._updated_ns
        age = None if updated_ns is None else (self._driver.now_ns() - updated_ns) / 1e9
        return ResolverSnapshot(type(self.resolver).__name__, age, self._unresolved, self.config)

    def subchannel_snapshots(self) -> tuple[SubchannelSnapshot, ...]:
        """What is known of each endpoint."""
        # A channel that nobody has entered has no clock yet, and no endpoints.
        now_ns = 0 if self._terms is None else self._driver.now_ns()
        return tuple(
            SubchannelSnapshot(
                address=row.address,
                state=subchannel.state,
                weight=row.weight,
                failure=subchannel.failure,
                picks=row.picks,
                in_flight=row.in_flight,
                successes=row.successes,
                failures=row.failures,
                breaker=None if self._breaker is None else row.breaker,
                ejected=row.ejected_until is not None,
                latency=row.latency,
                breaker_counts=row.counts,
                concurrency=row.concurrency,
            )
            for row in endpoint_snapshots(self._policy, now_ns)
            if (subchannel := self.subchannels.get(row.address)) is not None
        )

    async def _follow(self, scope: anyio.CancelScope) -> None:
        """Do as the resolver says; what it said last holds while it fails."""
        delay = 0.0
        with scope:
            while True:
                try:
                    async with self.resolver.watch() as states:
                        async for said in states:
                            # It may have become idle in the turn in which this came.
                            if scope is self._following:
                                self.update(said)
                            delay = 0.0
                    return
                except Exception as error:  # noqa: BLE001 - whatever a resolver meets
                    logged = logger.warning if isinstance(error, OSError) else logger.exception
                    logged("cannot follow %s: %s: the last endpoints stay", self.target, error)
                    self._unresolved = f"cannot resolve {self.target}: {error}"
                    self._wake()
                delay = min(max(delay * RESOLVE_GROWTH, RESOLVE_FIRST), RESOLVE_MOST)
                await anyio.sleep(delay)

    def update(self, said: Sequence[Endpoint] | ResolverState) -> None:
        """Take what the resolver says."""
        if isinstance(said, ResolverState):
            endpoints, document = said.endpoints, said.service_config
            outdated = said.problem and f"{self.target}: {said.problem}"
        else:
            endpoints, document, outdated = said, None, None
        if outdated is None:
            self._updated_ns = self._driver.now_ns()
        problem = self._take_config(document) or outdated
        if problem is not None and not self._resolved and (problem != outdated or not endpoints):
            # gRFC A21: without a config that was valid before, the channel does not work.
            self._unresolved = problem
        else:
            self._take_endpoints(endpoints)
            self._unresolved = problem
        self._wake()

    def _take_config(self, document: Any) -> str | None:
        """Change the service config if it is another one: why it cannot be taken, or None."""
        if document == self._document:
            return None
        try:
            config = self._own_config if document is None else ServiceConfig.of(document)
        except ConfigurationError as error:
            logger.warning("%s: the resolver's %s: the config before stays", self.target, error)
            return f"cannot take what {self.target} resolves to: {error}"
        before, self.config, self._document = self.config, config, document
        balancing = config.load_balancing or self._own_balancing
        if (
            balancing != self.balancing
            or config.health_check_service != before.health_check_service
        ):
            for subchannel in self.subchannels.values():
                subchannel.stop()
            self.subchannels.clear()
            self._set_balancing(balancing)
        self._configured(config)
        return None

    def _set_balancing(self, balancing: LoadBalancing) -> None:
        if self._pick_first is not None:
            self._pick_first.stop()
        self.balancing = balancing
        self._hash_header = balancing.hash_header
        self._weighs = balancing.balancer == "weighted_round_robin"
        self._policy = balancing.policy(
            seed=random.getrandbits(63), breaker=self._breaker, concurrency=self._concurrency
        )
        self._by_id = {}
        self._pick_first = None
        if balancing.balancer == "pick_first" and self._terms is not None:
            self._pick_first = PickFirst(
                self._driver, self._tell_selected, shuffle=balancing.shuffle
            )
            self._pick_first.exit_idle()

    def _take_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        if self._terms is None:
            return
        subset = self.balancing.subset
        wanted = {each.address: each for each in endpoints}
        if subset is not None:
            wanted = {each.address: each for each in subset.of(list(wanted.values()))}
        for address, subchannel in tuple(self.subchannels.items()):
            kept = wanted.get(address)
            if kept is None or kept.authority != subchannel.endpoint.authority:
                self.subchannels.pop(address).stop()
        eager = self._pick_first is None
        for address, endpoint in wanted.items():
            if address in self.subchannels:
                self.subchannels[address].endpoint = endpoint
                continue
            subchannel = self.subchannels[address] = Subchannel(
                self._terms,
                endpoint,
                self._subchannel_changed,
                eager=eager,
                health=self.config.health_check_service if eager else None,
            )
            self._driver.spawn(subchannel.run)
        listed = [(each.address, each.weight) for each in wanted.values()]
        ids = self._policy.update(listed, self._driver.now_ns())
        self._by_id = {}
        for endpoint_id, address in zip(ids, wanted, strict=True):
            subchannel = self.subchannels[address]
            subchannel.id = endpoint_id
            self._by_id[endpoint_id] = subchannel
        self._resolved = True
        if self._pick_first is not None:
            self._pick_first.update(
                self.subchannels[each] for each in wanted if wanted[each].weight
            )
        for subchannel in self.subchannels.values():
            self._tell_policy(subchannel)

    def _forget(self) -> None:
        self.subchannels.clear()
        self._resolved = False
        self._unresolved = None
        self._document = None
        self.config = self._own_config
        self._set_balancing(self.config.load_balancing or self._own_balancing)

    def _subchannel_changed(self, subchannel: Subchannel) -> None:
        if self._by_id.get(subchannel.id) is not subchannel:
            return
        if self._pick_first is not None:
            self._pick_first.changed(subchannel)
        self._tell_policy(subchannel)
        if subchannel.connection is None and subchannel.state in _LOST:
            self._refresh()
        self._wake()

    def _tell_policy(self, subchannel: Subchannel) -> None:
        ready = subchannel.connection is not None
        if self._pick_first is not None:
            ready = ready and self._pick_first.selected is subchannel
        self._policy.set_ready(subchannel.id, ready)

    def _tell_selected(self) -> None:
        for subchannel in self._by_id.values():
            self._tell_policy(subchannel)
        self._wake()

    def _refresh(self) -> None:
        if isinstance(self.resolver, RefreshableResolver):
            self.resolver.refresh()

    def _usable(self) -> list[Subchannel]:
        return [each for each in self.subchannels.values() if each.endpoint.weight]

    async def _wait_ready_once(self, deadline_ns: int | None, wait: bool) -> None:
        """Wait for a change, unless waiting cannot help.

        Source: gRPC's wait-for-ready document: without it, a call waits while
        endpoints connect and fails when the last one has failed.
        """
        self.wake_up()
        if self._terms is not None and not wait:
            hopeless = self._hopeless()
            if hopeless is not None:
                await anyio.lowlevel.checkpoint()
                raise hopeless
        left = None if deadline_ns is None else (deadline_ns - self._driver.now_ns()) / 1e9
        self.waiting += 1
        try:
            with anyio.move_on_after(left) as scope:
                await self.wait_change()
        finally:
            self.waiting -= 1
        if scope.cancelled_caught:
            failures = self._failures()
            why = f": {failures}" if failures else ""
            text = f"no connection to {self.target} before the deadline{why}"
            raise RpcError(Status.DEADLINE_EXCEEDED, text)

    def _hopeless(self) -> RpcError | NoEndpointError | None:
        """The error of a call if no endpoint can be reached as things are."""
        if not self._resolved:
            if self._unresolved is not None:
                return RpcError(Status.UNAVAILABLE, self._unresolved)
            return None
        usable = self._usable()
        if not usable:
            return NoEndpointError(self.target)
        if all(each.failure for each in usable):
            which = "the only endpoint" if len(usable) == 1 else f"none of {len(usable)} endpoints"
            can = "cannot be reached" if len(usable) == 1 else "can be reached"
            text = f"{which} of {self.target} {can}: {self._failures()}"
            return RpcError(Status.UNAVAILABLE, text)
        return None

    def _failures(self) -> str:
        """What keeps calls from being sent, as far as it is known."""
        failures = [each.failure for each in self._usable() if each.failure]
        if self._unresolved is not None:
            failures.insert(0, self._unresolved)
        more = len(failures) - MOST_TOLD
        told = failures[:MOST_TOLD] if more <= 0 else [*failures[:MOST_TOLD], f"and {more} more"]
        return "; ".join(told)

    def _hash(self, metadata: list[tuple[str, Any]] | None) -> int | None:
        """By gRFC A76: of all values of the header, joined by commas; none if it is not there."""
        name = self._hash_header
        values = [str(value) for key, value in metadata or () if key == name]
        return hash_key(",".join(values)) if values else None

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


#: States in which an endpoint's address may have changed.
_LOST = frozenset({ConnectivityState.IDLE, ConnectivityState.TRANSIENT_FAILURE})

"""Endpoints from the domain name system: addresses of a host, or of a service's SRV records."""

from __future__ import annotations

import ipaddress
import itertools
import logging
import math
import random
import socket
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from bascule.discovery._dns_config import choose_config
from bascule.discovery._endpoint import Endpoint, ResolverState
from bascule.discovery._usable import is_usable
from bascule.errors import ConfigurationError, TransportError
from bascule.net import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from dns.asyncresolver import Resolver as Client
    from dns.resolver import Answer

__all__ = ["DnsResolver"]

logger = logging.getLogger("bascule.discovery")

#: Seconds between lookups by the operating system, which tells no time to live.
EVERY = 30.0

#: Bounds of a time to live, in seconds.
LEAST_TTL, MOST_TTL = 5.0, 3600.0

#: Seconds until an answer must have come, all attempts included.
LIFETIME = 10.0

#: Hosts of SRV records that are looked up at the same time.
LOOKUPS = 8

#: Most endpoints that are taken from an answer, and hosts from SRV records: whoever answers must not
#: make a client open connections without end.
MOST_ENDPOINTS, MOST_HOSTS = 1000, 100


class DnsResolver:
    """Asks for addresses when it is watched, then again and again.

    ``host:port`` is looked up by the operating system, with its hosts file and search list; with a
    ``nameserver`` by A and AAAA records. A name like ``_grpc._tcp.users.example`` is looked up by
    SRV records (RFC 2782): those of the best priority count, with their weights. Its certificates
    are checked for ``users.example``, which is what was asked for.

    A lookup is repeated when the answer's time to live is over and, if ``min_interval`` has passed
    since the last one, when a connection fails. Addresses that no service can have on another host
    (link-local, multicast, unspecified) are passed over: an answer must not make a client call its
    cloud's metadata service. Of what an answer holds, 1,000 addresses and 100 hosts of SRV records
    are used. For use from one event loop.

    :param name: ``host:port``, or a name whose first two labels begin with an underscore
    :param nameserver: ``address`` or ``address:port`` of the server to ask
    :param every: seconds between lookups; None: by time to live, or 30 where it is not known
    :param min_interval: least seconds between the lookups that connections ask for
    :param service_config: take the service's config from TXT records of ``_grpc_config.NAME``
        (gRFC A2)
    :raises ConfigurationError: if the name or the address has not this form
    """

    def __init__(
        self,
        name: str,
        *,
        nameserver: str | None = None,
        every: float | None = None,
        min_interval: float = 30.0,
        service_config: bool = False,
    ) -> None:
        self._service = _service_of(name)
        where = parse_address(name) if self._service is None else Address("tcp", self._service)
        if where.kind != "tcp":
            message = f"dns target {name!r}: expected host:port or _service._proto.name"
            raise ConfigurationError(message)
        if (every is not None and not every > 0) or not min_interval >= 0:
            message = f"dns target {name!r}: every is {every} and min_interval {min_interval}: give seconds above 0"
            raise ConfigurationError(message)
        self._name, self._host, self._port = name, where.host, where.port
        self._nameserver = None if nameserver is None else _nameserver(nameserver)
        self._every = every
        self._min_interval = min_interval
        self._takes_config = service_config
        # Which part of the clients this one belongs to, for configs that are meant for a part.
        self._share = random.randrange(100)  # noqa: S311
        self._asked: set[anyio.Event] = set()

    def refresh(self) -> None:
        """Look up again as soon as ``min_interval`` allows it."""
        for each in self._asked:
            each.set()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[ResolverState]]:
        """Give each state that differs from the one before.

        :raises TransportError: from the iterator, if a lookup fails
        """
        asked = anyio.Event()

        async def states() -> AsyncGenerator[ResolverState]:
            nonlocal asked
            said: tuple[Any, Any] | None = None
            while True:
                self._asked.discard(asked)
                asked = anyio.Event()
                self._asked.add(asked)
                begun = anyio.current_time()
                state, period = await self._resolve()
                # Servers turn the order from answer to answer: that is no change.
                told = frozenset(state.endpoints), state.service_config
                if told != said:
                    said = told
                    yield state
                with anyio.move_on_after(begun + period - anyio.current_time()):
                    await asked.wait()
                    await anyio.sleep_until(begun + self._min_interval)

        try:
            async with aclosing(states()) as each:
                yield each
        finally:
            self._asked.discard(asked)

    async def _resolve(self) -> tuple[ResolverState, float]:
        """The state, and the seconds for which it holds."""
        config: Any = None
        ttl = math.inf
        if self._service is not None:
            endpoints, ttl = await self._look_up_service()
        elif self._nameserver is None or _is_address(self._host):
            endpoints, ttl = await self._look_up_by_system()
        else:
            addresses, ttl = await self._look_up_host(self._host)
            endpoints = [self._endpoint(each, self._port) for each in addresses]
        unique = {each.address: each for each in endpoints}
        if not unique:
            raise TransportError(f"{self._name} has no address that can be used")
        if len(unique) > MOST_ENDPOINTS:
            text = "%s resolves to %d addresses: the first %d are used"
            logger.warning(text, self._name, len(unique), MOST_ENDPOINTS)
            unique = dict(itertools.islice(unique.items(), MOST_ENDPOINTS))
        if self._takes_config:
            config, config_ttl = await self._look_up_config()
            ttl = min(ttl, config_ttl)
        period = self._every or min(max(ttl, LEAST_TTL), MOST_TTL)
        if _is_address(self._host):
            period = math.inf
        return ResolverState(tuple(unique.values()), config), period

    async def _look_up_by_system(self) -> tuple[list[Endpoint], float]:
        try:
            found = await anyio.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TransportError(f"{self._host}: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        usable = addresses if _is_address(self._host) else _usable(self._name, addresses)
        return [self._endpoint(each, self._port) for each in usable], EVERY

    async def _look_up_service(self) -> tuple[list[Endpoint], float]:
        answer = await self._ask(self._name, "SRV")
        if answer is None:
            raise TransportError(f"{self._name} has no SRV records")
        records: list[Any] = list(answer)
        best = min(record.priority for record in records)
        ttl = _ttl(answer)
        # RFC 2782: the target "." says that the service is not there.
        usable = [
            record
            for record in sorted(records, key=lambda each: (each.target, each.port))
            if record.priority == best and record.target.to_text() != "."
        ]
        if len(usable) > MOST_HOSTS:
            text = "%s has %d hosts: the first %d are used"
            logger.warning(text, self._name, len(usable), MOST_HOSTS)
            del usable[MOST_HOSTS:]
        hosts = await self._look_up_hosts(
            {record.target.to_text(omit_final_dot=True) for record in usable}
        )
        endpoints: list[Endpoint] = []
        failure: TransportError | None = None
        for record in usable:
            found = hosts[record.target.to_text(omit_final_dot=True)]
            if isinstance(found, TransportError):
                failure = found
                continue
            addresses, host_ttl = found
            ttl = min(ttl, host_ttl)
            # RFC 2782's weight 0 is a small chance; here it would be none.
            weight = max(record.weight, 1)
            endpoints += [self._endpoint(each, record.port, weight) for each in addresses]
        if failure is not None and not endpoints:
            raise failure
        return endpoints, ttl

    async def _look_up_hosts(
        self, names: Iterable[str]
    ) -> dict[str, tuple[list[str], float] | TransportError]:
        """What each host has for addresses, or why that cannot be found out."""
        found: dict[str, tuple[list[str], float] | TransportError] = {}
        limiter = anyio.CapacityLimiter(LOOKUPS)

        async def look_up(name: str) -> None:
            async with limiter:
                try:
                    found[name] = await self._look_up_host(name)
                except TransportError as error:
                    found[name] = error

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(look_up, name)
        return found

    async def _look_up_host(self, host: str) -> tuple[list[str], float]:
        """Its IPv6 and IPv4 addresses, and the seconds for which they hold.

        :raises TransportError: if neither can be found out
        """
        answers: dict[str, Answer | None] = {}
        failures: list[TransportError] = []

        async def ask(kind: str) -> None:
            try:
                answers[kind] = await self._ask(host, kind)
            except TransportError as error:
                failures.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "AAAA")
            group.start_soon(ask, "A")
        found = [answers[kind] for kind in ("AAAA", "A") if answers.get(kind) is not None]
        if not found and failures:
            raise failures[0]
        addresses = [str(record.address) for answer in found for record in answer or ()]
        ttls = [_ttl(answer) for answer in found if answer is not None]
        return _usable(host, addresses), min(ttls, default=LEAST_TTL)

    async def _look_up_config(self) -> tuple[Any, float]:
        """A config that cannot be found is none: few services have one."""
        try:
            answer = await self._ask(f"_grpc_config.{self._host}", "TXT")
        except TransportError as error:
            logger.debug("%s", error)
            return None, math.inf
        if answer is None:
            return None, math.inf
        records: list[Any] = list(answer)
        texts = [b"".join(record.strings).decode(errors="replace") for record in records]
        return choose_config(texts, socket.gethostname(), self._share), _ttl(answer)

    async def _ask(self, name: str, kind: str) -> Answer | None:
        """The answer; None if the name exists without records of this kind.

        :raises TransportError: if there is none
        """
        import dns.asyncbackend
        import dns.exception

        # Without a backend, dnspython takes the one of the process's first event loop.
        backend = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())
        try:
            answer = await self._client().resolve(
                name, kind, lifetime=LIFETIME, raise_on_no_answer=False, backend=backend
            )
        except (dns.exception.DNSException, OSError) as error:
            raise TransportError(f"{name} {kind}: {error}") from error
        return None if answer.rrset is None else answer

    def _client(self) -> Client:
        import dns.asyncresolver

        if self._nameserver is None:
            return dns.asyncresolver.Resolver()
        client = dns.asyncresolver.Resolver(configure=False)
        client.nameservers = [self._nameserver.host]
        client.port = self._nameserver.port
        return client

    def _endpoint(self, address: str, port: int, weight: int = 1) -> Endpoint:
        authority = self._service or str(Address("tcp", self._host, self._port))
        return Endpoint(str(Address("tcp", address, port)), weight, authority=authority)


class _HasTtl(Protocol):
    @property
    def rrset(self) -> Any: ...


def _ttl(answer: _HasTtl) -> float:
    return float(answer.rrset.ttl)


def _service_of(name: str) -> str | None:
    """What follows ``_service._proto.``; None if the name does not begin so."""
    labels = name.split(".", 2)
    if len(labels) == 3 and labels[2] and labels[0][:1] == "_" == labels[1][:1]:
        return labels[2]
    return None


def _nameserver(text: str) -> Address:
    where = parse_address(text) if not _is_address(text) else Address("tcp", text, 53)
    if not _is_address(where.host):
        message = f"nameserver {text!r}: expected an IP address, with a port if it is not 53"
        raise ConfigurationError(message)
    return where


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _usable(name: str, addresses: Iterable[str]) -> list[str]:
    usable = []
    for text in addresses:
        if is_usable(text):
            usable.append(text)
        else:
            logger.warning("%s resolves to %s: no service is called there", name, text)
    return usable

"""The agent's services and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from bascule.discovery.consul._errors import ConsulStatusError
from bascule.discovery.consul._wire import AgentService, CheckState, Weights
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bascule.discovery.consul._client import ConsulClient

__all__ = ["Agent", "Check", "GrpcCheck", "HttpCheck", "ServiceDefinition", "TtlCheck"]

Status = Literal["passing", "warning", "critical"]

#: What Consul gives an instance that says nothing.
EVEN = Weights()

#: Consul reaps at most every 30 s and knows nothing shorter than a minute.
LEAST_DEREGISTER = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What all checks have.

    :param id: None: Consul makes one from the service's
    :param status: until the first result
    :param deregister_after: seconds after which a service that stays critical is deregistered, at
        least 60; None for never
    :raises ConfigurationError: if a time is out of range
    """

    id: str | None = None
    name: str | None = None
    status: Status = "critical"
    deregister_after: float | None = None

    def __post_init__(self) -> None:
        if self.deregister_after is not None and not self.deregister_after >= LEAST_DEREGISTER:
            raise ConfigurationError(
                f"deregister_after is {self.deregister_after}: give at least {LEAST_DEREGISTER:g} s, "
                "as a shorter outage must not cost a registration"
            )

    def wire(self) -> dict[str, Any]:
        """The fields as Consul names them; those that are None are left out."""
        after = self.deregister_after
        return {
            "CheckID": self.id,
            "Name": self.name,
            "Status": self.status,
            "DeregisterCriticalServiceAfter": None if after is None else duration(after),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcCheck(Check):
    """The agent asks the gRPC health service.

    :param target: ``host:port``, or ``host:port/service``
    :param interval: seconds from one question to the next
    :param timeout: seconds for an answer
    """

    target: str
    tls: bool = False
    tls_server_name: str | None = None
    interval: float = 10.0
    timeout: float = 5.0

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        _above_0(self, self.interval, self.timeout)

    def wire(self) -> dict[str, Any]:
        """As for any check."""
        return Check.wire(self) | {
            "GRPC": self.target,
            "GRPCUseTLS": self.tls or None,
            "TLSServerName": self.tls_server_name,
            "Interval": duration(self.interval),
            "Timeout": duration(self.timeout),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheck(Check):
    """The agent asks by HTTP: 2xx is passing, 429 a warning, all else critical.

    :param interval: seconds from one question to the next
    :param timeout: seconds for an answer
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    interval: float = 10.0
    timeout: float = 5.0

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        _above_0(self, self.interval, self.timeout)

    def wire(self) -> dict[str, Any]:
        """As for any check."""
        return Check.wire(self) | {
            "HTTP": self.url,
            "Method": self.method,
            "Header": {name: list(values) for name, values in self.headers.items()} or None,
            "Interval": duration(self.interval),
            "Timeout": duration(self.timeout),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TtlCheck(Check):
    """The service tells the agent how it is; without a word for ``ttl`` seconds, it is critical."""

    ttl: float

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        _above_0(self, self.ttl)

    def wire(self) -> dict[str, Any]:
        """As for any check."""
        return Check.wire(self) | {"TTL": duration(self.ttl)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDefinition:
    """An instance to be registered.

    :param id: its name on its agent
    :param address: None: the node's
    """

    name: str
    id: str
    port: int
    address: str | None = None
    tags: Sequence[str] = ()
    meta: Mapping[str, str] = field(default_factory=dict, hash=False)
    weights: Weights = EVEN
    checks: Sequence[Check] = ()

    def wire(self) -> dict[str, Any]:
        """The fields as Consul names them."""
        return {
            "Name": self.name,
            "ID": self.id,
            "Port": self.port,
            "Address": self.address or "",
            "Tags": list(self.tags),
            "Meta": dict(self.meta),
            "Weights": {"Passing": self.weights.passing, "Warning": self.weights.warning},
            "Checks": [_present(each.wire()) for each in self.checks],
        }

    def is_as(self, known: AgentService) -> bool:
        """Whether the agent knows the instance as it is defined here."""
        return (
            known.service == self.name
            and known.port == self.port
            and known.address == (self.address or "")
            and tuple(known.tags or ()) == tuple(self.tags)
            and (known.meta or {}) == self.meta
            and known.weights == self.weights
        )


class Agent:
    """The agent that the client talks to. Get it as :attr:`ConsulClient.agent`.

    Every method raises :class:`ConsulError` if Consul is away, refuses or answers nonsense.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def register(self, service: ServiceDefinition) -> None:
        """Register an instance, or replace the one with its id; checks that it has no more, go."""
        params = {"replace-existing-checks": "true"}
        await self._put("service/register", service.wire(), params=params)

    async def deregister(self, service_id: str) -> None:
        """Remove an instance and its checks; one that is not there counts as removed."""
        try:
            await self._put(f"service/deregister/{_quoted(service_id)}")
        except ConsulStatusError as error:
            # Consul says 404 for what it does not know; earlier versions 500 with these words.
            if error.status != 404 and "Unknown service" not in error.message:
                raise

    async def service(self, service_id: str) -> AgentService | None:
        """An instance as the agent knows it; None if it does not."""
        path = f"/v1/agent/service/{_quoted(service_id)}"
        try:
            return (await self._client.http.call("GET", path, AgentService)).value
        except ConsulStatusError as error:
            if error.status != 404:
                raise
        return None

    async def services(self) -> dict[str, AgentService]:
        """The agent's own instances, by their ids."""
        path = "/v1/agent/services"
        return (await self._client.http.call("GET", path, dict[str, AgentService])).value

    async def maintenance(
        self, service_id: str, enable: bool, *, reason: str | None = None
    ) -> None:
        """Take an instance out of all lists that resolvers give, or put it back."""
        params = {"enable": _boolean(enable), "reason": reason}
        await self._put(f"service/maintenance/{_quoted(service_id)}", params=params)

    async def node_maintenance(self, enable: bool, *, reason: str | None = None) -> None:
        """The same for all instances of the agent's node."""
        await self._put("maintenance", params={"enable": _boolean(enable), "reason": reason})

    async def register_check(self, check: Check, *, service_id: str | None = None) -> None:
        """Add a check of the node, or of an instance; it needs a name."""
        fields = check.wire()
        # Of a service's check the id is CheckID, of one on its own it is ID.
        fields["ID"] = fields.pop("CheckID")
        await self._put("check/register", _present(fields | {"ServiceID": service_id}))

    async def deregister_check(self, check_id: str) -> None:
        """Remove a check."""
        await self._put(f"check/deregister/{_quoted(check_id)}")

    async def checks(self) -> dict[str, CheckState]:
        """The agent's own checks, by their ids."""
        path = "/v1/agent/checks"
        return (await self._client.http.call("GET", path, dict[str, CheckState])).value

    async def update_check(self, check_id: str, status: Status, output: str = "") -> None:
        """Tell the result of a TTL check.

        :raises ConsulStatusError: with status 404, if the agent does not know the check
        """
        body = {"Status": status, "Output": output}
        await self._put(f"check/update/{_quoted(check_id)}", body)

    async def _put(
        self,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str | None] | None = None,
    ) -> None:
        content = None if body is None else msgspec.json.encode(body)
        await self._client.http.call(
            "PUT", f"/v1/agent/{path}", type(None), params=params, body=content
        )


def duration(seconds: float) -> str:
    """Seconds in Go's notation."""
    return f"{round(seconds * 1000)}ms"


def _quoted(text: str) -> str:
    if not text or text in {".", ".."}:
        message = f"id {text!r}: expected a name"
        raise ConfigurationError(message)
    return quote(text, safe="")


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _above_0(check: Check, *seconds: float) -> None:
    if not all(each > 0 for each in seconds):
        raise ConfigurationError(f"{check}: its times must be above 0 s")

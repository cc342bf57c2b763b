"""Follows the EndpointSlices of a service."""

from __future__ import annotations

import logging
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx

from bascule._backoff import grown
from bascule._latest import Latest
from bascule._tasks import owned_tasks
from bascule.discovery._endpoint import ResolverState
from bascule.discovery.kubernetes._api import Api, GoneError, KubernetesError
from bascule.discovery.kubernetes._settings import KubernetesSettings
from bascule.discovery.kubernetes._slices import EndpointSlice, endpoints_of
from bascule.errors import ConfigurationError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["KubernetesResolver", "kubernetes_target"]

logger = logging.getLogger("bascule.discovery")

#: Bounds of the pause after a failure, in seconds; it grows twofold.
LEAST_PAUSE, MOST_PAUSE = 0.5, 30.0

#: Least seconds between two watches, however fast the server ends them.
LEAST_WATCH = 1.0

#: RFC 1123 label, which names of services and namespaces are.
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT = re.compile("[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")

FORM = "expected k8s:///service.namespace:port with the pods' port, by number or name"


class KubernetesResolver:
    """Follows the pods behind a service; give it to a :class:`bascule.rpc.Channel`.

    It needs the rights to ``list`` and ``watch`` ``endpointslices`` (``discovery.k8s.io``) in the
    service's namespace. Ready endpoints are called; if there is none, those that still serve while
    they end. ``Endpoint.metadata`` has ``zone``, ``node``, ``pod`` and the ``zones`` that Kubernetes
    hints at. While the API server is away, what was known last stays. For use from one event loop.

    :param namespace: None for the one of the settings
    :param port: of the pods, by number or name; empty if they have one only
    :param settings: None for what the environment says
    :param authority: the name that calls are addressed to and certificates are checked for; None
        for ``service.namespace.svc``
    :raises ConfigurationError: if a name or a setting cannot work
    """

    def __init__(
        self,
        service: str,
        namespace: str | None = None,
        *,
        port: str | int = "",
        settings: KubernetesSettings | None = None,
        authority: str | None = None,
    ) -> None:
        self._settings = settings or KubernetesSettings.read()
        self._service = service
        self._namespace = namespace or self._settings.namespace
        self._port = str(port)
        good_port = not self._port or (
            0 < int(self._port) < 65536 if self._port.isdecimal() else _PORT.fullmatch(self._port)
        )
        names = (self._service, self._namespace)
        if not all(_LABEL.fullmatch(each) for each in names) or not good_port:
            message = f"service {service!r} in namespace {namespace!r} with port {port!r}: {FORM}"
            raise ConfigurationError(message)
        self._authority = authority or f"{self._service}.{self._namespace}.svc"
        self._context = self._settings.context()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[ResolverState]]:
        """Give each list that differs from the one before, and when the API server fails or is back.

        Failures do not end it: they are told as the state's ``problem``.
        """
        latest: Latest[ResolverState] = Latest()
        client = httpx.AsyncClient(
            base_url=self._settings.url,
            verify=self._context or True,
            trust_env=False,
            limits=httpx.Limits(max_connections=2),
        )
        async with client, owned_tasks() as tasks:
            api = Api(client, self._settings, self._namespace, self._service)
            following = _Following(api, self._port, self._authority, latest)
            tasks.start_soon(following.run, name=f"k8s {self._authority}")
            yield latest
            tasks.cancel_scope.cancel()


class _Following:
    """One watch: lists, watches, lists again when it has to."""

    def __init__(self, api: Api, port: str, authority: str, latest: Latest[ResolverState]) -> None:
        self._api = api
        self._port = port
        self._authority = authority
        self._latest = latest
        self._slices: dict[str, EndpointSlice] = {}
        #: From where to watch; empty: list first.
        self._version = ""
        self._failures = 0
        self._said: ResolverState | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = anyio.current_time()
            try:
                if not self._version:
                    self._slices, self._version = await self._api.list()
                    self._tell(None)
                await self._api.watch(self._version, lambda: self._tell(None), self._change)
                if anyio.current_time() - begun > LEAST_WATCH:
                    self._failures = 0
            except GoneError as error:
                logger.info("%s: %s: listing again", self._authority, error)
                # A server that says so again and again is to be left alone, too.
                self._version = ""
                self._failures += 1
                if self._failures > 1:
                    self._tell(str(error))
            except (TransportError, KubernetesError) as error:
                self._failures += 1
                if isinstance(error, KubernetesError):
                    self._version = ""
                if self._failures == 1:
                    logger.warning("%s: %s: the last endpoints stay", self._authority, error)
                self._tell(str(error))
            await anyio.sleep(self._pause(anyio.current_time() - begun))

    def _pause(self, passed: float) -> float:
        if self._failures:
            most = grown(self._failures + 1, LEAST_PAUSE, MOST_PAUSE)
            return random.uniform(LEAST_PAUSE, most)  # noqa: S311
        return max(LEAST_WATCH - passed, 0.0)

    def _change(self, name: str, found: EndpointSlice | None, version: str) -> None:
        if version:
            self._version = version
        if found is not None:
            self._slices[name] = found
        elif name:
            self._slices.pop(name, None)
        self._failures = 0
        self._tell(None)

    def _tell(self, problem: str | None) -> None:
        endpoints = endpoints_of(self._slices.values(), self._port, self._authority)
        if problem is None and not endpoints and self._slices:
            problem = self._unusable()
        state = ResolverState(endpoints, problem=problem)
        if self._said is None or _comparable(state) != _comparable(self._said):
            self._said = state
            self._latest.put(state)

    def _unusable(self) -> str | None:
        """Why no slice counts, if that is because of the port: nobody would find out otherwise."""
        filled = [each.ports or () for each in self._slices.values() if each.endpoints]
        if self._port.isdecimal() or not filled:
            return None
        if any(each.name == self._port for ports in filled for each in ports):
            return None
        if not self._port and any(len(ports) == 1 for ports in filled):
            return None
        known = sorted({f"{each.name or ''}:{each.port}" for ports in filled for each in ports})
        wanted = f"port {self._port!r}" if self._port else "exactly one port"
        return f"no pods of {self._authority} with {wanted}: they have {', '.join(known)}"


def _comparable(state: ResolverState) -> object:
    return state.endpoints, [each.metadata for each in state.endpoints], state.problem is None


def kubernetes_target(target: str) -> KubernetesResolver:
    """The resolver of ``k8s:///service.namespace:port``; without a namespace, it is this pod's own.

    :raises ConfigurationError: if it has not this form, or no API server is known
    """
    rest = target.removeprefix("k8s:///")
    names, _, port = rest.partition(":")
    service, *others = names.split(".")
    if rest == target or not service or others[1:2] not in ([], ["svc"]):
        raise ConfigurationError(f"target {target!r}: {FORM}")
    try:
        return KubernetesResolver(service, others[0] if others else None, port=port)
    except ConfigurationError as error:
        raise ConfigurationError(f"target {target!r}: {error}") from error

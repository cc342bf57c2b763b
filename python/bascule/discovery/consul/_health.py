"""The health of services, as all of Consul knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from bascule.discovery.consul._wire import CheckState, ServiceEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.discovery.consul._client import ConsulClient
    from bascule.discovery.consul._http import Answer

__all__ = ["Health"]

Consistency = Literal["default", "stale", "consistent"]


class Health:
    """Queries across the cluster. Get it as :attr:`ConsulClient.health`.

    Every method raises :class:`ConsulError` if Consul is away, refuses or answers nonsense.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def service(
        self,
        name: str,
        *,
        tags: Sequence[str] = (),
        near: str | None = None,
        passing_only: bool = False,
        filter: str | None = None,  # noqa: A002
        datacenter: str | None = None,
        consistency: Consistency = "default",
        **blocking: Any,
    ) -> Answer[tuple[ServiceEntry, ...]]:
        """The instances of a service, none if there is no such service.

        :param tags: only those that have all of them
        :param near: sorted by the round trip from a node; ``_agent`` is the agent's own
        :param passing_only: only those whose checks all pass
        :param filter: in Consul's language, such as ``Service.Meta.version == "2"``
        :param consistency: ``stale``: any server may answer, also one without a leader;
            ``consistent``: the leader asks the others first whether it still is
        """
        params = {
            "tag": list(tags) or None,
            "near": near,
            "passing": "true" if passing_only else None,
            "filter": filter,
            "dc": datacenter,
            consistency: None if consistency == "default" else "true",
        }
        path = f"/v1/health/service/{quote(name, safe='')}"
        return await self._client.http.call(
            "GET", path, tuple[ServiceEntry, ...], params=params, **blocking
        )

    async def state(
        self,
        state: Literal["any", "passing", "warning", "critical"] = "any",
        *,
        consistency: Consistency = "default",
        **blocking: Any,
    ) -> Answer[tuple[CheckState, ...]]:
        """All checks that are in this state."""
        params: dict[str, str | list[str] | None] = {
            consistency: None if consistency == "default" else "true"
        }
        return await self._client.http.call(
            "GET", f"/v1/health/state/{state}", tuple[CheckState, ...], params=params, **blocking
        )

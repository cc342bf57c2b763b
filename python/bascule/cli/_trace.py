"""A trace as Jaeger has it, as a tree for people to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

__all__ = ["TraceNode", "fetch_trace"]

#: Seconds that Jaeger may take to have all of a trace that was sent to it.
PATIENCE = 10.0


@dataclass(slots=True, kw_only=True)
class TraceNode:
    """A span with what was done for it; or several alike that nothing else was done for.

    :ivar seconds: that it took; all of them together
    :ivar count: how many spans it stands for
    :ivar failed: whether it has the status of an error
    """

    service: str
    name: str
    seconds: float
    count: int = 1
    failed: bool = False
    children: list[TraceNode] = field(default_factory=list)

    @property
    def spans(self) -> int:
        """How many spans there are, with those below."""
        return self.count + sum(child.spans for child in self.children)


async def fetch_trace(url: str, trace_id: str) -> TraceNode | None:
    """Ask Jaeger for a trace until it has its beginning; None if it does not get it in time.

    :param url: of Jaeger's pages
    """
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        with anyio.move_on_after(PATIENCE):
            while True:
                answer = await client.get(f"/api/traces/{trace_id}")
                if answer.status_code == httpx.codes.OK:
                    root = _tree(answer.json()["data"][0])
                    if root is not None:
                        return root
                await anyio.sleep(0.1)
    return None


def _tree(trace: dict[str, Any]) -> TraceNode | None:
    """Give the first span that no other span caused, with all below it."""
    services = {key: each["serviceName"] for key, each in trace["processes"].items()}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for span in sorted(trace["spans"], key=lambda span: span["startTime"]):
        parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
        below.setdefault(parents[0] if parents else None, []).append(span)

    def node(span: dict[str, Any]) -> TraceNode:
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        return TraceNode(
            service=services[span["processID"]],
            name=span["operationName"],
            seconds=span["duration"] / 1e6,
            failed=tags.get("error") is True,
            children=_folded([node(child) for child in below.get(span["spanID"], [])]),
        )

    roots = below.get(None)
    return node(roots[0]) if roots else None


def _folded(nodes: list[TraceNode]) -> list[TraceNode]:
    """Make one of those alike that nothing was done for: a saga writes to its log many times."""
    folded: dict[tuple[object, ...], TraceNode] = {}
    for node in nodes:
        key = (node.service, node.name, node.failed, id(node) if node.children else None)
        known = folded.setdefault(key, node)
        if known is not node:
            known.seconds += node.seconds
            known.count += 1
    return list(folded.values())

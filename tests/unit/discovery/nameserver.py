"""A small DNS server on loopback."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Nameserver:
    """Answers over UDP from a table that a test may change while it runs.

    :ivar records: texts of records, by name and kind
    :ivar failing: names of which it says SERVFAIL
    :ivar silent: names of which it says nothing
    :ivar queries: what it was asked, in order
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self.queries: list[tuple[str, str]] = []
        self.ttl = 300
        self.address = ""
        self._changed = anyio.Event()

    async def until_asked(self, times: int, kind: str) -> None:
        """Wait until it was asked so many times for records of a kind."""
        while sum(each == kind for _, each in self.queries) < times:
            await self._changed.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Nameserver]:
        async with (
            await anyio.create_udp_socket(local_host="127.0.0.1") as udp,
            anyio.create_task_group() as group,
        ):
            host, port = udp.extra(anyio.abc.SocketAttribute.local_address)[:2]
            self.address = f"{host}:{port}"

            async def serve() -> None:
                async for data, peer in udp:
                    reply = self._answer(dns.message.from_wire(data))
                    if reply is not None:
                        await udp.sendto(reply.to_wire(), *peer)

            group.start_soon(serve)
            yield self
            group.cancel_scope.cancel()

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, kind))
        self._changed.set()
        self._changed = anyio.Event()
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        texts = self.records.get((name, kind))
        if name in self.silent:
            return None
        if name in self.failing:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif texts:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

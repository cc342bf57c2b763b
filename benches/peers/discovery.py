"""Discovery by a real Consul; each prints one JSON object of figures.

``python -m benches.peers.discovery LOOP routed TRIALS`` registers an instance and calls it, so often.
``python -m benches.peers.discovery LOOP watches SERVICES`` watches so many services that have one
instance each, with a TTL check, and adds instances to some.
"""

import json
import logging
import statistics
import sys
import time

import anyio
import psutil
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.discovery import Registration
from bascule.discovery.consul import (
    ConsulClient,
    ConsulRegistrar,
    ConsulResolver,
    ServiceDefinition,
    TtlCheck,
)
from bascule.rpc import Channel, Server
from bascule.testing.servers import ConsulServer
from benches.peers.percentile import percentile

UPDATES = 3
IDLE = 5.0  #: seconds
_SETTLED = 30.0  #: seconds after which all is to be at rest


class Echo(EchoBase):
    """Answers."""

    async def unary(self, request: EchoRequest) -> EchoReply:
        """Answer."""
        return EchoReply()


def definition(service: int, instance: int) -> ServiceDefinition:
    """Answer with an instance that nobody will call."""
    check = TtlCheck(id=f"check-{service}-{instance}", ttl=3600, status="passing")
    return ServiceDefinition(
        name=f"s{service}",
        id=f"s{service}-{instance}",
        address="127.0.0.1",
        port=1000 + instance,
        checks=[check],
    )


class RequestCount(logging.Filter):
    """Counts the requests that httpx tells of when they are answered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def filter(self, _record: logging.LogRecord) -> bool:
        """Count, and show nothing."""
        self.count += 1
        return False


async def first_routed_call(
    consul: ConsulServer, client: ConsulClient, trials: int
) -> dict[str, float]:
    """Measure the seconds from registering an instance to the answer of the first call."""
    took = []
    for number in range(trials):
        target = f"consul://{consul.address}/echo-{number}"
        async with Server([Echo()]) as server, Channel(target, wait_for_ready=True) as channel:
            while channel.snapshot().resolver.age is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            begun = time.perf_counter()
            registration = Registration(f"echo-{number}", server.addresses[0])
            async with ConsulRegistrar(client).registered(registration):
                await EchoStub(channel).unary(EchoRequest(), timeout=10)
                took.append(time.perf_counter() - begun)
    return {"routed_p50": percentile(took, 50), "routed_p99": percentile(took, 99)}


async def many(client: ConsulClient, services: int) -> dict[str, float]:
    """Watch them all."""
    me = psutil.Process()
    seen: dict[int, tuple[float, int]] = {}

    def cpu() -> float:
        times = me.cpu_times()
        return times.user + times.system

    async def follow(service: int) -> None:
        async with ConsulResolver(f"s{service}", client=client).watch() as states:
            async for state in states:
                seen[service] = time.perf_counter(), len(state.endpoints)

    async def change(service: int) -> float:
        begun = time.perf_counter()
        await client.agent.register(definition(service, 2))
        while seen[service][1] != 2:  # noqa: ASYNC110
            await anyio.sleep(0.002)
        return seen[service][0] - begun

    async with anyio.create_task_group() as tasks:
        for service in range(services):
            tasks.start_soon(client.agent.register, definition(service, 1))
    while len((await client.health.state("passing")).value) < services:  # noqa: ASYNC110
        await anyio.sleep(0.1)
    async with anyio.create_task_group() as tasks:
        begun, used, resident = time.perf_counter(), cpu(), me.memory_info().rss
        for service in range(services):
            tasks.start_soon(follow, service)
        while len(seen) < services:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        started, start_cpu = time.perf_counter() - begun, cpu() - used
        logger = logging.getLogger("httpx")
        logger.setLevel(logging.INFO)
        logger.addFilter(requests := RequestCount())
        with anyio.fail_after(_SETTLED):
            before = -1
            while before != requests.count:
                before = requests.count
                await anyio.sleep(1)
        used = cpu()
        await anyio.sleep(IDLE)
        idle_cpu, at_rest = cpu() - used, requests.count - before
        logger.setLevel(logging.WARNING)
        figures = {
            "start_seconds": started,
            "start_cpu_seconds": start_cpu,
            "idle_cpu": idle_cpu / IDLE,
            "requests_per_second": at_rest / IDLE,
            "sockets": len(me.net_connections("tcp")),
            # Beside the one that follows each watch.
            "tasks": len(anyio.get_running_tasks()) - services,
            "resident": me.memory_info().rss,
            "bytes_per_watch": (me.memory_info().rss - resident) / services,
        }
        for name, first in (("own", 0), ("shared", services // 2)):
            took = []
            for service in range(first, first + UPDATES):
                await anyio.sleep(1.1)  # what comes faster is seen together
                took.append(await change(service))
            figures[f"{name}_median"] = statistics.median(took)
            figures[f"{name}_worst"] = max(took)
        tasks.cancel_scope.cancel()
    return figures


async def main(part: str, count: int) -> dict[str, float]:
    """Measure a part."""
    async with ConsulServer() as consul, ConsulClient(consul.url) as client:
        if part == "routed":
            return await first_routed_call(consul, client, count)
        return await many(client, count)


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, sys.argv[2], int(sys.argv[3]), backend=sys.argv[1])))

"""Real processes of one service behind one scrape; one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import anyio
import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest

from bascule.rpc import Channel

ROOT = Path(__file__).parents[2]

SERVICE = """
import sys, anyio
from tests.generated.echo_bascule import EchoBase
from tests.generated.echo_pb2 import EchoReply
from bascule.app import App, Life

class Echo(EchoBase):
    async def unary(self, request):
        return EchoReply(text=request.text)

async def main():
    app = App("echo", [Echo()], "127.0.0.1:0", operations="127.0.0.1:0", propagation=0.0)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        print(life.addresses[0], life.operations, flush=True)
        with anyio.open_signal_receiver(15) as signals:
            async for _ in signals:
                break
        life.stop()

anyio.run(main, backend=sys.argv[1])
"""


class Process:
    """One process of the service."""

    def __init__(self, stack: ExitStack, folder: Path, backend: str) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": path}
        command = [sys.executable, "-W", "error", "-c", SERVICE, backend]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        stack.enter_context(self.process)
        stack.callback(self.process.kill)
        assert self.process.stdout is not None
        self.address, self.operations = self.process.stdout.readline().split()

    def call(self, times: int) -> None:
        async def calls() -> None:
            async with Channel(self.address) as channel:
                for _ in range(times):
                    await EchoStub(channel).unary(EchoRequest(text="x"))

        anyio.run(calls)

    def scrape(self) -> dict[str, float]:
        """The numbers of interest, by name; with the number of processes that have told theirs."""
        text = httpx.get(f"http://{self.operations}/metrics", timeout=30.0).text
        found: dict[str, float] = {"processes": 0}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("method", "Unary") == "Unary":
                    found[sample.name] = sample.value
                found["processes"] += sample.name == "process_start_time_seconds"
        return found


def settled(process: Process, calls: float, processes: int) -> dict[str, float]:
    """What a process tells when the others have written what they counted."""
    until = monotonic() + 60
    while True:
        found = process.scrape()
        if (found.get("grpc_requests_total"), found["processes"]) == (calls, processes):
            return found
        assert monotonic() < until, found
        sleep(0.1)


def test_whichever_process_is_asked_tells_of_all(tmp_path: Path) -> None:
    """Both loops; 5 s, since each process imports all that a service does."""
    with ExitStack() as stack:
        first = Process(stack, tmp_path, "asyncio")
        second = Process(stack, tmp_path, "trio")
        first.call(3)
        second.call(4)
        for each in (first, second):
            found = settled(each, 7, 2)
            assert found["grpc_request_duration_seconds_count"] == 7
            assert found["server_connections_accepted_total"] >= 2

        second.process.send_signal(signal.SIGKILL)
        second.process.wait()
        found = settled(first, 7, 1)
        assert found["grpc_request_duration_seconds_count"] == 7

        third = Process(stack, tmp_path, "asyncio")
        third.call(5)
        settled(first, 12, 2)
        third.process.send_signal(signal.SIGTERM)
        assert third.process.wait(60) == 0
        found = settled(first, 12, 1)
        assert found["event_loop_tasks"] < 20, "what ended has no tasks"

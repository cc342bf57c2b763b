"""grpc-go's interoperability client passes every case against bascule's server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.interop.service import Interop, LoadReports
from tests.tools import tool

from bascule.net import ServerTLS
from bascule.rpc import Server

if TYPE_CHECKING:
    from tests.certificates import Certificates

pytestmark = pytest.mark.anyio

#: Those of grpc-go's interop_test.sh, and one that it has besides.
CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
    "pick_first_unary",
]

#: Reads what servers report of their load.
BALANCER = '{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'

#: Slowness is no failure here: machines that run tests are busy.
PATIENCE = [
    "-soak_iterations=1000",
    "-soak_overall_timeout_seconds=90",
    "-soak_per_iteration_max_acceptable_latency_ms=30000",
]


@pytest.mark.parametrize("secure", [False, True], ids=["h2c", "tls"])
@pytest.mark.parametrize("case", CASES)
async def test_case(case: str, secure: bool, certificates: Certificates) -> None:
    client, service = tool("grpc-interop-client"), Interop()
    tls = ServerTLS(certificates.certificate, certificates.key) if secure else None
    async with Server([service, LoadReports(service)], tls=tls, grace=1.0) as server:
        host, _, port = server.addresses[0].rpartition(":")
        command = [str(client), f"-server_host={host}", f"-server_port={port}"]
        command += [f"-test_case={case}", *PATIENCE]
        if secure:
            command += ["-use_tls", "-use_test_ca", f"-ca_file={certificates.ca}"]
        if case.startswith("orca"):
            command.append(f"-service_config_json={BALANCER}")
        with anyio.fail_after(110):
            ran = await anyio.run_process(command, check=False)
    assert ran.returncode == 0, ran.stderr.decode()[-4000:]

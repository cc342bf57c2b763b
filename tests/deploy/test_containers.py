"""The commands of compose.yaml, with the files and accounts that it gives them, on real servers.

It takes 20 seconds, as it starts five servers and five processes: nothing less shows that they fit together.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio.to_thread
import coredis
import httpx
import pytest
from tests.deploy.composition import COMPOSE, FOLDER, OWN, secrets
from tests.deploy.containers import (
    ComposeConsul,
    ComposeMariaDB,
    ComposeRedis,
    Container,
    addresses,
    translated,
)
from tests.integration.shop_processes import eventually
from tests.servers import need
from tests.tools import lacking

from bascule.testing.servers import JaegerServer, NxMongoServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> str:
    """The processes choose their loops themselves."""
    return "asyncio"


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The servers of Compose, and what stands for their names and for the paths of its containers."""
    for kind in (ComposeConsul, ComposeMariaDB, ComposeRedis, NxMongoServer, JaegerServer):
        need(kind)
    made = secrets(tmp_path / "made")
    (tmp_path / "state").mkdir()
    found = {
        "/run/secrets": str(tmp_path / "secrets"),
        "/var/lib/bascule": str(tmp_path / "state"),
        "/etc/bascule": str(tmp_path),
    }
    early = {"/run/secrets": str(tmp_path / "made")}
    with ExitStack() as stack:
        consul = stack.enter_context(ComposeConsul())
        redis = stack.enter_context(ComposeRedis(early))
        mariadb = stack.enter_context(ComposeMariaDB())
        mongo = stack.enter_context(NxMongoServer())
        mariadb.furnish(made, early)
        found["consul:8500"] = consul.address
        found["redis:6379"] = redis.address
        found["mysql-users:3306"] = found["mysql-orders:3306"] = mariadb.address
        # What speaks MongoDB's protocol here knows no accounts.
        found[f"product:{made['product_password']}@mongodb:27017/product"] = (
            f"{mongo.address}/product?directConnection=true"
        )
        (tmp_path / "secrets").mkdir()
        for name, text in made.items():
            (tmp_path / "secrets" / name).write_text(translated(text, found))
        yield found


@pytest.mark.anyio
@pytest.mark.timeout(400)
async def test_the_shop_takes_an_order(
    places: dict[str, str], jaeger_server: JaegerServer, tmp_path: Path
) -> None:
    """And Jaeger has it as one trace, of the names that Compose gives its containers."""
    places["http://jaeger:4318"] = jaeger_server.endpoint
    own = addresses(OWN)
    settings = (FOLDER / "gateway.toml").read_text()
    heard = translated(settings, {**places, "0.0.0.0": own["gateway"]})
    (tmp_path / "gateway.toml").write_text(heard)
    with ExitStack() as stack:
        running = {}
        for name in ("user", "product", "payment", "order", "gateway"):
            running[name] = stack.enter_context(Container(name, own[name], tmp_path, places))
        for container in running.values():
            await container.until_healthy()
        order = {
            "items": [{"productId": "prd_001", "quantity": 1}],
            "paymentToken": "tok_visa",
        }
        # What README.md has people copy out of the container.
        trust = ssl.create_default_context(cafile=tmp_path / "state/tls/localhost.pem")
        async with httpx.AsyncClient(
            base_url=f"https://{own['gateway']}:8443",
            verify=trust,
            trust_env=False,
            http2=True,
            event_hooks={"request": [as_localhost]},
        ) as client:
            client.headers["idempotency-key"] = "once"
            assert (await client.post("/api/v1/orders", json=order)).status_code == 401
            client.headers["authorization"] = f"Bearer {running['gateway'].token('usr_ada')}"
            # The gateway is ready before it has heard of every service.
            await eventually(lambda: answers(client, "/api/v1/orders"), 60.0)
            made = await client.post("/api/v1/orders", json=order, timeout=30.0)
            assert made.status_code == 201, made.text
            found = await client.get(made.headers["location"])
            assert found.json()["id"] == made.json()["id"]
            assert (await client.get("/metrics")).status_code == 404, "these are not for the world"
        for container in reversed(running.values()):
            container.terminate()
            assert await container.ended() == 0, container.log
            assert "Traceback" not in container.log
        (trace_id,) = (
            entry["trace_id"]
            for entry in running["gateway"].entries()
            if entry.get("status") == 201
        )
    await eventually(lambda: traced(jaeger_server, trace_id), 60.0)


async def traced(jaeger: JaegerServer, trace_id: str) -> bool:
    """Whether a trace has come from all of the project's containers."""
    found = await anyio.to_thread.run_sync(jaeger.trace, trace_id)
    processes = found["processes"].values() if found else ()
    return {each["serviceName"] for each in processes} == set(OWN)


async def as_localhost(request: httpx.Request) -> None:
    """The certificate is for that name."""
    request.extensions["sni_hostname"] = "localhost"


async def answers(client: httpx.AsyncClient, path: str) -> bool:
    return (await client.get(path)).status_code == 200


@pytest.mark.anyio
async def test_redis_gives_each_account_what_it_needs(tmp_path: Path) -> None:
    need(ComposeRedis)
    made = secrets(tmp_path)
    with ComposeRedis({"/run/secrets": str(tmp_path)}) as server:
        stranger = coredis.Redis.from_url(server.url)
        shop = coredis.Redis.from_url(made["redis_url"].replace("redis:6379", server.address))
        async with stranger, shop:
            assert await stranger.ping()
            with pytest.raises(coredis.exceptions.AuthorizationError):
                await stranger.get("key")
            assert await shop.set("key", "value")
            for forbidden in (shop.acl_list, shop.flushall, shop.config_rewrite, shop.client_list):
                with pytest.raises(coredis.exceptions.AuthorizationError):
                    await forbidden()


def test_mongodb_is_told_of_an_account_for_products_alone(tmp_path: Path) -> None:
    """mongosh is Node with a ``db``."""
    node = shutil.which("node") or lacking("needs node")
    made = secrets(tmp_path)
    script = (FOLDER / COMPOSE["configs"]["product-database"]["file"]).read_text()
    stand_in = (
        "global.db = {getSiblingDB: (name) => ({createUser: (user) => {"
        " console.log(JSON.stringify([name, user])) }})};"
    )
    ran = subprocess.run(
        [node, "--eval", stand_in + translated(script, {"/run/secrets": str(tmp_path)})],
        capture_output=True,
        text=True,
        check=True,
    )
    name, user = json.loads(ran.stdout)
    assert name == "product"
    assert user == {
        "user": "product",
        "pwd": made["product_password"],
        "roles": [{"role": "readWrite", "db": "product"}],
    }


def test_what_mysql_sources_is_no_program() -> None:
    """Its entry point runs programs in a shell of their own, which has not its function for statements."""
    script = FOLDER / COMPOSE["configs"]["payment-database"]["file"]
    assert not script.stat().st_mode & 0o111

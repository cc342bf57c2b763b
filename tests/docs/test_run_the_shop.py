"""docs/how-to/run-the-shop.md is followed: four services and a gateway as processes, on real servers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pages import Session
from tests.servers import running

from bascule.testing.servers import ConsulServer, MariaDBServer, NxMongoServer, RedisServer


def test_the_page(tmp_path: Path, consul_server: ConsulServer, redis_server: RedisServer) -> None:
    """It starts five processes, which takes some seconds: nothing else shows that the page is right."""
    with (
        running(MariaDBServer) as mariadb,
        running(NxMongoServer) as mongo,
        Session(tmp_path, ports=(8080,)) as session,
    ):
        session.replace("127.0.0.1:40735", consul_server.url.removeprefix("http://"))
        session.replace("redis://127.0.0.1:44283/0", redis_server.url)
        session.replace("127.0.0.1:38651", f"127.0.0.1:{mariadb.port}")
        session.replace("127.0.0.1:41087", mongo.url.split("/")[2])
        said = session.walk(
            "docs/how-to/run-the-shop.md", background={"python shop_gateway.py": "serving"}
        )
        order = json.loads(said[said.index("{", said.index("}")) :])
        assert order["status"] == "ORDER_STATUS_CONFIRMED", said

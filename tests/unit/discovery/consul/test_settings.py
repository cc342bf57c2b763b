"""Where Consul is: arguments, variables and targets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bascule.discovery.consul import (
    ConsulClient,
    ConsulResolver,
    ConsulSettings,
    Protection,
    consul_target,
)
from bascule.errors import ConfigurationError
from bascule.net import ClientTLS
from bascule.rpc import Channel


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "10.0.0.1:9500"}, "http://10.0.0.1:9500"),
        ({"CONSUL_HTTP_ADDR": "agent"}, "http://agent:8500"),
        ({"CONSUL_HTTP_ADDR": "https://agent"}, "https://agent:8501"),
        ({"CONSUL_HTTP_ADDR": "https://agent:1/"}, "https://agent:1"),
        ({"CONSUL_HTTP_ADDR": "agent:1", "CONSUL_HTTP_SSL": "true"}, "https://agent:1"),
        ({"CONSUL_HTTP_ADDR": "http://agent:1", "CONSUL_HTTP_SSL": "1"}, "https://agent:1"),
        ({"CONSUL_HTTP_ADDR": "agent:1", "CONSUL_HTTP_SSL": "false"}, "http://agent:1"),
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "unix:///run/consul.sock"),
        ({"CONSUL_HTTP_ADDR": "[::1]:8500"}, "http://[::1]:8500"),
    ],
)
def test_addresses(environment: dict[str, str], url: str) -> None:
    assert ConsulSettings.read(environment=environment).url == url


@pytest.mark.parametrize(
    "environment",
    [
        {"CONSUL_HTTP_ADDR": "ftp://agent"},
        {"CONSUL_HTTP_ADDR": "http://"},
        {"CONSUL_HTTP_ADDR": "http://user:secret@agent:8500"},
        {"CONSUL_HTTP_ADDR": "agent:99999"},
        {"CONSUL_HTTP_ADDR": "agent:8500?token=secret"},
        {"CONSUL_HTTP_SSL": "yes"},
        {"CONSUL_HTTP_TOKEN_FILE": "/nowhere/at/all"},
        {"CONSUL_NAMESPACE": "team"},
        {"CONSUL_PARTITION": "part"},
        {"CONSUL_CAPATH": "/etc/ssl"},
        {"CONSUL_CLIENT_KEY": "key.pem"},
    ],
)
def test_variables_that_cannot_be_used(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConsulSettings.read(environment=environment)
    assert "secret" not in str(caught.value)


def test_tokens(tmp_path: Path) -> None:
    """A file goes before a variable, as in Consul's own command, and arguments before both."""
    file = tmp_path / "token"
    file.write_text(" from-file \n")
    said = {"CONSUL_HTTP_TOKEN": "from-variable", "CONSUL_HTTP_TOKEN_FILE": str(file)}
    assert ConsulSettings.read(environment=said).token == "from-file"
    assert ConsulSettings.read(token="given", environment=said).token == "given"
    assert ConsulSettings.read(token="", environment=said).token == ""
    del said["CONSUL_HTTP_TOKEN_FILE"]
    settings = ConsulSettings.read(environment=said | {"CONSUL_HTTP_AUTH": "me:password"})
    assert settings.token == "from-variable"
    assert settings.headers()["x-consul-token"] == "from-variable"
    assert settings.headers()["authorization"] == "Basic bWU6cGFzc3dvcmQ="
    assert "from-variable" not in repr(settings)
    assert "password" not in repr(settings)
    with pytest.raises(ConfigurationError, match="x-consul-token") as caught:
        ConsulClient("http://a:1", token="a\r\nx-evil: 1")
    assert "evil" not in str(caught.value)


def test_tls() -> None:
    said = {
        "CONSUL_CACERT": "ca.pem",
        "CONSUL_CLIENT_CERT": "me.pem",
        "CONSUL_CLIENT_KEY": "key.pem",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
    }
    settings = ConsulSettings.read(environment=said)
    assert settings.tls == ClientTLS("ca.pem", "me.pem", "key.pem", "server.dc1.consul")
    assert settings.context() is None, "http needs none"
    unchecked = ConsulSettings.read(
        "https://agent:1", environment={"CONSUL_HTTP_SSL_VERIFY": "false"}
    ).context()
    assert unchecked is not None
    assert not unchecked.check_hostname


@pytest.mark.parametrize(
    "wrong", [{"max_polls": 0}, {"wait": 0.5}, {"wait": 601}, {"wait": math.nan}]
)
def test_clients_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ConsulClient("http://a:1", **wrong)


def test_a_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "agent:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    plain = consul_target("consul:///user-service")
    assert plain.service == "user-service"
    assert plain._settings.url == "http://agent:1"
    full = consul_target(
        "consul://other:2/a%20b?tag=x&tag=y%26z&dc=dc2&near=_agent&passing_only=false"
        f"&consistency=stale&panic_threshold=0.25&hold=5&cache={tmp_path}&authority=b"
        "&filter=Service.Meta.v+%3D%3D+%222%22"
    )
    assert full.service == "a b"
    assert full._settings.url == "http://other:2"
    assert full._settings.token == "secret"
    assert full._query.tags == ("x", "y&z")
    assert (full._query.datacenter, full._query.near) == ("dc2", "_agent")
    assert full._query.filter == 'Service.Meta.v == "2"'
    assert full._query.consistency == "stale"
    assert full._protection == Protection(0.25, 5.0)
    assert full._authority == "b"


@pytest.mark.parametrize(
    "target",
    [
        "consul:",
        "consul:users",
        "consul://",
        "consul:///",
        "consul://agent",
        "consul:///a/b",
        "consul:///users?",
        "consul:///users?color=red",
        "consul:///users?near=a&near=b",
        "consul:///users?passing_only=maybe",
        "consul:///users?hold=long",
        "consul:///users?hold=-1",
        "consul:///users?consistency=strong",
        "consul:///users#part",
        "consul://user:secret@agent:1/users",
        "consul://agent:99999/users",
    ],
)
def test_targets_that_are_none(target: str) -> None:
    if target == "consul:///users?":
        assert isinstance(consul_target(target), ConsulResolver)
        return
    with pytest.raises(ConfigurationError):
        Channel(target)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        resolver = consul_target(f"consul://{text}")
    except ConfigurationError:
        return
    assert resolver.service

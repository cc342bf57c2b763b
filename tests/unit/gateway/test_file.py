"""What a gateway's file may say, what becomes of it, and what is said of what cannot work."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.errors import ConfigurationError, Status
from bascule.gateway import GatewayFile, LimitConfig, RemoteKeys
from bascule.gateway._file_reference import reference
from bascule.resilience import BreakerSettings, LimitAlgorithm, TimeWindow
from bascule_shop.gateway import descriptor_set, gateway_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.certificates import Certificates

ROOT = Path(__file__).parents[3]

USERS = """
descriptors = ["python:bascule_shop.gateway:descriptor_set"]
[upstreams]
"user.UserService" = "static:///127.0.0.1:1"
"""
PUBLIC = f"{USERS}\n[route]\npublic = true\n"


def read(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> GatewayFile:
    path = folder / "gateway.toml"
    path.write_text(text)
    return GatewayFile.read(path, environment=environment or {})


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("listen = [", "", "cannot be read: Invalid value (at end of document)"),
        ("", "descriptors", "it is missing (what declares the routes"),
        (f"lisen = 'x'\n{PUBLIC}", "lisen", "there is no such key; known: listen, descriptors, "),
        (f"grace = '1'\n{PUBLIC}", "grace", "'1' is not a number"),
        (f"listen = []\n{PUBLIC}", "listen", "it is empty"),
        (f"listen = 'here'\n{PUBLIC}", "listen", "expected host:port"),
        (f"{PUBLIC}[operations]\nlisten = 'here'", "operations.listen", "expected host:port"),
        (f"grace = inf\n{PUBLIC}", "grace", "give 0 to 86400 seconds"),
        (f"{PUBLIC}[http]\nmax_body = -1", "http.max_body", "give more than 0"),
        (f"{PUBLIC}[http]\nmax_body = 1.5", "http.max_body", "1.5 is not a whole number"),
        (f"{PUBLIC}[http]\nmax_bdy = 1", "http.max_bdy", "known: max_body, max_header_bytes"),
        (f"{PUBLIC}[limits]\naway = 'shut'", "limits.away", 'one of "local", "open", "closed"'),
        (f"{PUBLIC}[limits]\nsubject = 5", "limits.subject", "5 is not a table or true or false"),
        (f"{PUBLIC}[limits.subject]\nper = 5", "limits.subject.requests", "it is missing"),
        (f"{PUBLIC}[limits.subject]\nrequests = 0", "limits.subject", "must be a positive number"),
        (
            f"{PUBLIC}[routes.'/user.UserService/GetUser']\ntimeuot = 1",
            'routes."/user.UserService/GetUser".timeuot',
            "known: public, scopes, timeout",
        ),
        (
            f"{PUBLIC}[routes.'/user.UserService/GetUser']\nscopes = ['a']",
            'routes."/user.UserService/GetUser"',
            "a public route cannot ask for scopes",
        ),
        (f"{PUBLIC}retry = {{ statuses = ['AWAY'] }}", "route", "'AWAY' is none of OK, "),
        (f"{PUBLIC}retry = true\nhedge = true", "route", "both a retry and a hedging policy"),
        (f"{PUBLIC}[upstream.breaker]\ntimeout = -1", "", "timeout"),
        (
            f"{PUBLIC}[upstream.breaker]\ncount_window = {{ calls = 5 }}",
            'upstreams."user.UserService".breaker',
            "count_window: minimum_calls is 20",
        ),
        (
            f"{PUBLIC}[upstream.breaker]\ncount_window = {{}}\ntime_window = {{}}",
            'upstreams."user.UserService".breaker',
            "give either count_window or time_window",
        ),
        (f"{PUBLIC}[upstream]\ntarget = '${{X}}'", "upstream.target", "the environment has no X"),
        (f"{PUBLIC}[log]\nlevel = '${{X}}'", "log.level", "the environment cannot stand here"),
        (f"listen = '${{X'\n{PUBLIC}", "listen", "write ${NAME} or ${NAME:-default}"),
        (f"{PUBLIC}[tls]\ncertificate = 'a.pem'", "tls", "give both certificate and key"),
        (f"{PUBLIC}[tls]\ncertificate = 'a'\nkey = 'b'", "tls", "cannot be read"),
        (f"{PUBLIC}[auth]\nissuer = 'i'", "auth", "give exactly one of jwks_url, jwks_file, "),
        (
            f"{PUBLIC}[auth]\njwks_url = 'https://i'\naudience = 'a'",
            "auth",
            "give issuer and audience",
        ),
        (f"{PUBLIC}[auth]\nalgorithms = ['none']", "auth.algorithms", 'one of "RS256", '),
        (f"{PUBLIC}[redis]\nurl_file = 'none'", "redis.url_file", "cannot be read"),
        (f"{PUBLIC}[cors]\nallow_origins = ['app.example']", "cors", "expected scheme://host"),
        (
            PUBLIC.replace("python:bascule_shop.gateway:descriptor_set", "none.binpb"),
            "descriptors[0]",
            "'none.binpb' cannot be read",
        ),
        (
            PUBLIC.replace("bascule_shop.gateway:descriptor_set", "bascule_shop.nothing"),
            "descriptors[0]",
            "cannot be imported",
        ),
        (
            PUBLIC.replace(":descriptor_set", ":SERVICES"),
            "descriptors[0]",
            "is tuple, not bytes",
        ),
        (
            PUBLIC.replace("python:bascule_shop.gateway:descriptor_set", "gateway.toml"),
            "descriptors[0]",
            "is no FileDescriptorSet",
        ),
        (
            PUBLIC.replace("static:///127.0.0.1:1", "statc:///a"),
            "",
            "target 'statc:///a': expected",
        ),
        (PUBLIC.replace("user.UserService", "user.Users"), "", "has no service user.Users"),
        (USERS, "", "/user.UserService/GetUser needs a token"),
        (f"{PUBLIC}[routes.'/user.UserService/Get']\npublic = true", "", "names ['/user.UserS"),
    ],
)
def test_what_cannot_work_is_said_with_file_and_key(
    tmp_path: Path, text: str, key: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text).gateway()
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/gateway.toml: {key}{':' * bool(key)}")
    assert said in message
    assert "\n" not in message


def test_settings_cascade_from_all_routes_to_one(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        f"""{PUBLIC}
timeout = 5
retry = {{ max_attempts = 4 }}
[routes."/user.UserService/*"]
timeout = 3
[routes."/user.UserService/CreateUser"]
created = "/api/v1/users/{{id}}"
retry = false
""",
    )
    settings = file.config.settings
    assert settings("/order.OrderService/GetOrder").timeout == 5
    assert settings("/user.UserService/GetUser").timeout == 3
    created = settings("/user.UserService/CreateUser")
    assert (created.timeout, created.public) == (3, True)
    assert created.created is not None
    service_config = file.config.upstream("user.UserService").service_config
    assert service_config is not None
    got = service_config.method("/user.UserService/GetUser")
    assert got is not None
    assert got.retry is not None
    assert got.retry.max_attempts == 4
    assert got.retry.retryable_statuses == {Status.UNAVAILABLE}
    made = service_config.method("/user.UserService/CreateUser")
    assert made is not None
    assert made.retry is None, "it may create somebody twice"


def test_services_take_what_they_do_not_say_from_all(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        f"""{PUBLIC}
[upstream]
balancer = "least_request"
breaker = {{ failure_threshold = 2, timeout = 7 }}
[upstreams."product.ProductService"]
target = "dns:///products:50051"
tls = true
breaker = {{ timeout = 9 }}
[upstreams."order.OrderService"]
target = "consul://agent:8500/order.OrderService"
breaker = false
""",
    )
    users, products, orders = (
        file.config.upstream(f"{name}.{name.title()}Service")
        for name in ("user", "product", "order")
    )
    assert users.balancer == products.balancer == "least_request"
    assert users.breaker is not None
    assert products.breaker is not None
    assert (users.breaker.failure_threshold, users.breaker.timeout) == (2, 7)
    assert (products.breaker.failure_threshold, products.breaker.timeout) == (2, 9)
    assert orders.breaker is None
    assert (users.tls is None, products.tls is None) == (True, False)


def test_breakers_may_have_windows(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        f"""{PUBLIC}
[upstream.breaker.time_window]
seconds = 30
slow_call = 2
slow_call_rate = 0.8
[upstreams."product.ProductService"]
target = "dns:///products:50051"
breaker = {{ half_open_permits = 5, time_window = {{ failure_rate = 0.25 }} }}
[upstreams."order.OrderService"]
target = "dns:///orders:50051"
breaker = true
""",
    )
    users, products, orders = (
        file.config.upstream(f"{name}.{name.title()}Service").breaker
        for name in ("user", "product", "order")
    )
    window = TimeWindow(seconds=30, slow_call=2, slow_call_rate=0.8)
    assert users == BreakerSettings(window=window)
    assert products == BreakerSettings(
        half_open_permits=5, window=replace(window, failure_rate=0.25)
    )
    assert orders == BreakerSettings()


def test_the_environment_stands_where_it_may(tmp_path: Path) -> None:
    text = f"""
listen = "${{HOST:-127.0.0.1}}:${{PORT}}"
{PUBLIC}
[redis]
url = "${{REDIS:-}}"
url_file = "${{REDIS_FILE:-}}"
[operations]
listen = "${{OPERATIONS:-}}"
"""
    (tmp_path / "url").write_text("redis://:secret@host:6379/0\n")
    file = read(tmp_path, text, {"PORT": "1", "REDIS_FILE": "url", "OPERATIONS": ""})
    assert (file.config.listen, file.operations) == (("127.0.0.1:1",), None)
    assert file.config.redis == "redis://:secret@host:6379/0", "paths are the file's own"
    file = read(tmp_path, text, {"PORT": "1", "HOST": "h", "REDIS": "redis://r"})
    assert (file.config.listen, file.config.redis) == (("h:1",), "redis://r")


def test_keys_come_from_one_of_four_places(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    common = f"{PUBLIC}\n[auth]\nissuer = 'i'\naudience = 'a'\n"
    auth = read(tmp_path, f"{common}secret_file = 'secret'").config.auth
    assert auth is not None
    assert auth.algorithms == {"HS256"}
    auth = read(tmp_path, f"{common}jwks_url = 'https://i/keys'").config.auth
    assert auth is not None
    assert isinstance(auth.keys, RemoteKeys)
    assert auth.algorithms == {"RS256", "ES256", "EdDSA"}
    file = read(tmp_path, f"{common}development = 'dev'")
    assert file.development_key is not None
    assert (tmp_path / "dev/development-key.json").stat().st_mode & 0o777 == 0o600


def test_limits_are_there_unless_they_are_refused(tmp_path: Path) -> None:
    config = read(tmp_path, PUBLIC).config
    assert (config.subject_limit, config.address_limit) == (LimitConfig(), LimitConfig(6000))
    assert config.metrics_path is config.health_path is None, "an inner address has them"
    config = read(
        tmp_path, f"{PUBLIC}[limits]\naddress = false\nsubject = {{ requests = 5 }}"
    ).config
    assert (config.subject_limit, config.address_limit) == (LimitConfig(5), None)


def test_a_limit_names_its_algorithm(tmp_path: Path) -> None:
    limits = "[limits]\naddress = false\nsubject = { requests = 5, algorithm = "
    config = read(tmp_path, f"{PUBLIC}{limits}'sliding_window' }}").config
    assert config.subject_limit == LimitConfig(5, algorithm=LimitAlgorithm.SLIDING_WINDOW)
    with pytest.raises(ConfigurationError, match=r"limits\.subject\.algorithm: 'log'"):
        read(tmp_path, f"{PUBLIC}{limits}'log' }}")
    with pytest.raises(ConfigurationError, match=r"limits\.subject: .*burst is 9"):
        read(tmp_path, f"{PUBLIC}{limits}'sliding_window', burst = 9 }}")


def test_descriptors_come_from_files_and_modules(tmp_path: Path) -> None:
    """Each once, however many sets hold it."""
    (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    sources = [
        "shop.binpb",
        "python:bascule_shop.gateway:descriptor_set",
        "python:tests.generated.echo_pb2",
    ]
    file = read(
        tmp_path,
        PUBLIC.replace('["python:bascule_shop.gateway:descriptor_set"]', json.dumps(sources)),
    )
    assert len(file.gateway().bindings) == 3


def test_the_shops_own_file_serves_what_its_program_serves(tmp_path: Path) -> None:
    """Its routes are those of the gateway that the demo starts."""
    from bascule.gateway import DevelopmentKey
    from bascule_shop.gateway import shop_gateway

    key = DevelopmentKey(tmp_path)
    program = shop_gateway(key.auth)
    environment = {"SHOP_AUTH_DEVELOPMENT": str(tmp_path)}
    file = GatewayFile.read(ROOT / "python/bascule_shop/gateway.toml", environment=environment)
    gateway = file.gateway()
    assert gateway.bindings == program.bindings
    for binding in gateway.bindings:
        assert file.config.settings(binding.rpc_path) == program.config.settings(binding.rpc_path)
    assert file.config.subject_limit == program.config.subject_limit
    assert file.config.address_limit == program.config.address_limit


def test_the_shops_command_line_goes_before_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_AUTH_DEVELOPMENT", str(tmp_path))
    file = gateway_file(
        listen="127.0.0.1:0", operations="127.0.0.1:1", consul="agent:1", peers={"user": "u:1"}
    )
    assert (file.config.listen, file.operations) == (("127.0.0.1:0",), "127.0.0.1:1")
    assert file.config.upstream("user.UserService").target == "u:1"
    assert (
        file.config.upstream("order.OrderService").target == "consul://agent:1/order.OrderService"
    )
    with pytest.raises(ConfigurationError, match="asks no service 'payment'"):
        gateway_file(peers={"payment": "p:1"})


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{USERS}\n[tls]\ndevelopment = 'dev'\n[auth]\ndevelopment = 'dev'\n")
    ran = CliRunner().invoke(app, ["gateway", "-c", str(path), "--check"])
    assert (ran.exit_code, ran.output.splitlines()[0][-5:]) == (0, "(TLS)")
    assert list(tmp_path.iterdir()) == [path]


def test_a_check_prints_the_routes(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(PUBLIC)
    ran = CliRunner().invoke(app, ["gateway", "-c", str(path), "--check"])
    assert ran.exit_code == 0
    first, *rest = ran.output.splitlines()
    assert first == f"{path}: 3 routes at 127.0.0.1:8443 (plain text)"
    assert rest[0].split() == [
        *("GET", "/api/v1/users/{id}", "user.UserService/GetUser", "public", "15", "s"),
        "static:///127.0.0.1:1",
    ]
    path.write_text("listen = 1")
    ran = CliRunner().invoke(app, ["gateway", "-c", str(path), "--check"])
    assert (ran.exit_code, ran.stderr) == (
        2,
        f"bascule gateway: {path}: listen: 1 is not text or a list of texts\n",
    )


def test_only_a_development_key_signs_tokens(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(PUBLIC)
    ran = CliRunner().invoke(app, ["gateway", "-c", str(path), "--token", "somebody"])
    assert ran.exit_code == 2
    assert "auth.development is not given" in ran.stderr


def test_the_reference_has_every_key() -> None:
    page = (ROOT / "docs/reference/gateway-file.md").read_text()
    (tables,) = re.findall(r"<!-- keys: begin -->\n(.*?)<!-- keys: end -->", page, re.DOTALL)
    assert tables.strip() == reference().strip(), "write it anew: bascule gateway --keys"


def test_the_page_shows_a_file_that_works(tmp_path: Path, certificates: Certificates) -> None:
    page = (ROOT / "docs/how-to/gateway.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    (tmp_path / "url").write_text("redis://r:6379/0")
    for path, here in {
        "/run/secrets/tls/tls.crt": certificates.certificate,
        "/run/secrets/tls/tls.key": certificates.key,
        "/run/secrets/redis-url": tmp_path / "url",
        # There is no cluster here.
        "k8s:///product.shop:50051": "dns:///product.shop:50051",
    }.items():
        assert path in text
        text = text.replace(path, str(here))
    file = read(tmp_path, text)
    assert len(file.gateway().bindings) == 6
    assert file.operations == "0.0.0.0:9464"

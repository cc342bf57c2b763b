"""``bascule doctor`` on real servers, and on what is wrong with them."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from joserfc.jwk import ECKey
from tests.generated.echo_bascule import EchoBase
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.cli.doctor import Check, Finding, Level, Report, examine
from bascule.cli.doctor._certificates import Certificates, checks_of_certificates
from bascule.cli.doctor._clocks import Moment, compare, look_at_steps
from bascule.cli.doctor._gateway import checks_of_gateway
from bascule.cli.doctor._here import Requirement, checks_of_machine
from bascule.cli.doctor._project import checks_of_apps, checks_of_ports
from bascule.cli.doctor._servers import Servers, checks_of_servers, without_password
from bascule.errors import ConfigurationError
from bascule.net import ClientTLS, HttpRequest, HttpResponse, HttpServer, ServerTLS
from bascule.rpc import HealthService, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from tests.certificates import Certificates as Issued

    from bascule.testing.servers import ConsulServer, MongoServer, RedisServer

#: Seconds: machines that run tests are busy.
PATIENCE = 30.0


async def found(checks: Iterable[Check]) -> list[Finding]:
    """What checks find."""
    return await examine(list(checks), timeout=PATIENCE)


async def found_of(**servers: Any) -> list[Finding]:
    return await found(checks_of_servers(Servers(timeout=PATIENCE, **servers)))


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [each.level for each in findings]


@asynccontextmanager
async def answering(response: HttpResponse, tls: ServerTLS | None = None) -> AsyncIterator[str]:
    """Answer every request alike; the address."""

    async def answer(_: HttpRequest) -> HttpResponse:
        return response

    async with HttpServer(answer, listen="127.0.0.1:0", tls=tls, grace=0.0) as server:
        yield server.addresses[0]


class Echo(EchoBase):
    """A service with methods that nobody calls."""


class TestServers:
    """Round trips to real ones."""

    pytestmark = pytest.mark.anyio

    async def test_consul_is_asked_and_its_clock_compared(
        self, consul_server: ConsulServer
    ) -> None:
        here, clock = await found_of(consul=(consul_server.address,))

        assert (here.level, clock.level) == (Level.OK, Level.OK)
        assert "services at this agent" in here.found
        assert clock.subject == f"clock of consul {consul_server.address}"

    async def test_the_environment_names_servers_as_the_shop_reads_it(self, redis_url: str) -> None:
        here, clock = await found_of(environment={"SHOP_EVENTS": redis_url})

        assert "(SHOP_EVENTS)" in here.subject
        assert clock.level is Level.OK

    async def test_a_redis_that_forgets_is_warned_of(self, redis_server: RedisServer) -> None:
        here, clock = await found_of(redis=(redis_server.url,))

        assert here.level is Level.WARNING
        assert "appendonly" in here.advice
        assert clock.level is Level.OK

    async def test_a_redis_that_keeps_is_fine(self, own_redis: RedisServer) -> None:
        assert levels(await found_of(redis=(own_redis.url,))) == [Level.OK, Level.OK]

    async def test_no_password_is_shown(self, redis_server: RedisServer) -> None:
        wrong = f"redis://somebody:geheim@127.0.0.1:{redis_server.port}/0"

        (refused,) = await found_of(redis=(wrong,))

        assert refused.level is Level.FAILED
        assert "geheim" not in str(refused)

    async def test_mariadb_is_asked_and_its_clock_compared(self, mariadb_url: str) -> None:
        here, clock = await found_of(databases=(mariadb_url,))

        assert levels([here, clock]) == [Level.OK, Level.OK]
        assert here.found.startswith(("mysql 10.", "mariadb 10."))

    async def test_mongo_is_asked_and_its_clock_compared(self, mongo_server: MongoServer) -> None:
        here, *clock = await found_of(databases=(mongo_server.url,))

        assert here.level is Level.OK
        assert levels(clock) in ([], [Level.OK])  # not all that speak its protocol tell the time

    async def test_an_sqlite_file_is_not_made_by_looking(self, tmp_path: Path) -> None:
        file = tmp_path / "orders.db"

        (missing,) = await found_of(databases=(f"sqlite:///{file}",))
        assert missing.level is Level.WARNING
        assert not file.exists()

        file.touch()
        (there,) = await found_of(databases=(f"sqlite:///{file}",))
        assert there.level is Level.OK

    @pytest.mark.parametrize("kind", ["consul", "redis", "databases", "otlp", "targets", "urls"])
    async def test_who_does_not_listen_is_a_failure_with_advice(
        self, kind: str, free_tcp_port: int
    ) -> None:
        here = f"127.0.0.1:{free_tcp_port}"
        address = {
            "redis": f"redis://{here}",
            "databases": f"mysql://somebody:geheim@{here}/shop",
            "otlp": f"http://{here}",
            "urls": f"http://{here}",
        }.get(kind, here)

        (gone,) = await found_of(**{kind: (address,)})

        assert gone.level is Level.FAILED
        assert gone.advice
        assert "geheim" not in str(gone)

    async def test_who_accepts_and_says_nothing_is_given_up(self) -> None:
        with anyio.fail_after(PATIENCE):
            async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
                port = silent.extra(anyio.abc.SocketAttribute.local_port)
                here = f"127.0.0.1:{port}"
                servers = Servers(
                    consul=(here,),
                    redis=(f"redis://{here}",),
                    targets=(here,),
                    urls=(f"http://{here}",),
                    timeout=0.5,
                )
                findings = await found(checks_of_servers(servers))

        assert levels(findings) == [Level.FAILED] * 4

    async def test_a_service_tells_its_health(self) -> None:
        health = HealthService()
        async with Server([health], listen="127.0.0.1:0", grace=0.0) as server:
            (serving,) = await found_of(targets=(server.addresses[0],))
            health.set("", serving=False)
            (not_serving,) = await found_of(targets=(server.addresses[0],))

        assert levels([serving, not_serving]) == [Level.OK, Level.FAILED]
        assert "NOT_SERVING" in not_serving.found

    async def test_a_service_without_health_is_warned_of(self) -> None:
        async with Server([Echo()], listen="127.0.0.1:0", grace=0.0) as server:
            (here,) = await found_of(targets=(server.addresses[0],))

        assert here.level is Level.WARNING

    async def test_a_host_that_nobody_knows_is_told_by_its_name(self) -> None:
        name, call = await found_of(targets=("no-such-host.invalid:50051",))

        assert (name.topic, name.subject, name.level) == (
            "names",
            "no-such-host.invalid",
            Level.FAILED,
        )
        assert call.level is Level.FAILED

    async def test_a_collector_takes_an_empty_export(self) -> None:
        async with answering(HttpResponse(200)) as address:
            (taken, *_) = await found_of(otlp=(f"http://{address}",))
        async with answering(HttpResponse(404)) as address:
            (refused, *_) = await found_of(otlp=(f"http://{address}",))

        assert levels([taken, refused]) == [Level.OK, Level.FAILED]
        assert "4318" in refused.advice

    async def test_a_key_set_must_have_a_key_to_verify_with(self) -> None:
        key = ECKey.generate_key("P-256").as_dict(private=False)
        answers = []
        for keys in ([key], [{"kty": "oct", "k": "c2VjcmV0"}]):
            body = json.dumps({"keys": keys}).encode()
            async with answering(HttpResponse(200, [], body)) as address:
                answers.append((await found_of(jwks=(f"http://{address}/jwks",)))[0])

        assert levels(answers) == [Level.OK, Level.FAILED]
        assert "ES256" in answers[0].found

    @pytest.mark.parametrize(
        ("skew", "level"),
        [(0.0, Level.OK), (8.0, Level.WARNING), (-90.0, Level.FAILED)],
    )
    async def test_a_clock_that_is_wrong_is_seen_by_its_date(
        self, skew: float, level: Level
    ) -> None:
        date = formatdate(time.time() + skew, usegmt=True)
        async with answering(HttpResponse(200, [("date", date)])) as address:
            here, clock = await found_of(urls=(f"http://{address}/",))

        assert here.level is Level.OK
        assert clock.topic == "clocks"
        assert clock.level is level
        assert ("behind" in clock.found) is (skew < 0)


@pytest.mark.parametrize(
    ("theirs", "took", "grain", "level"),
    [
        (1000.0, 0.0, 1e-6, Level.OK),
        (1001.5, 0.0, 1e-6, Level.WARNING),
        (1001.5, 2.0, 1e-6, Level.OK),  # the answer may have been under way for that long
        (1001.0, 0.0, 1.0, Level.OK),  # it may be 1001.0 or 1001.99
        (1031.5, 0.0, 1e-6, Level.FAILED),
        (968.0, 0.0, 1.0, Level.FAILED),
        (970.0, 0.0, 1.0, Level.WARNING),
    ],
)
def test_a_clock_is_wrong_only_beyond_doubt(
    theirs: float, took: float, grain: float, level: Level
) -> None:
    report, moment = Report("clocks", "x"), Moment()
    moment.begun, moment.ended = 1000.0 - took / 2, 1000.0 + took / 2

    compare(report, "x", theirs, moment, grain=grain)

    assert levels(report.findings) == [level]


class TestCertificates:
    """Files, and what servers show."""

    pytestmark = pytest.mark.anyio

    async def test_a_good_one_is_good_in_every_respect(self, certificates: Issued) -> None:
        wanted = Certificates(
            files=(certificates.certificate,),
            keys=(certificates.key,),
            authorities=certificates.ca,
        )
        certificates.key.chmod(0o600)

        findings = await found(checks_of_certificates(wanted))

        assert levels(findings) == [Level.OK] * 4
        assert "localhost" in findings[1].found

    @pytest.mark.parametrize(
        ("left", "level"),
        [(-1.0, Level.FAILED), (1.0, Level.WARNING), (60.0, Level.OK)],
    )
    async def test_its_end_is_told_in_time(self, left: float, level: Level, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        issued = trustme.CA().issue_cert(
            "localhost",
            not_before=now - timedelta(days=90),
            not_after=now + timedelta(days=left),
        )
        file = tmp_path / "both.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))

        dates, *_ = await found(checks_of_certificates(Certificates(files=(file,))))

        assert dates.level is level

    async def test_a_key_of_another_one_is_noticed(
        self, certificates: Issued, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.key"
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
        wanted = Certificates(files=(certificates.certificate,), keys=(other,))

        *_, key = await found(checks_of_certificates(wanted))

        assert key.level is Level.FAILED
        assert "another one's" in key.found

    async def test_an_authority_that_did_not_issue_it_is_noticed(
        self, certificates: Issued, tmp_path: Path
    ) -> None:
        other = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        wanted = Certificates(
            files=(certificates.certificate,), keys=(certificates.key,), authorities=other
        )

        findings = await found(checks_of_certificates(wanted))

        assert findings[2].level is Level.FAILED

    async def test_a_file_that_is_none_is_a_failure(self, tmp_path: Path) -> None:
        file = tmp_path / "nothing.pem"
        (missing,) = await found(checks_of_certificates(Certificates(files=(file,))))
        file.write_text("nothing")
        (senseless,) = await found(checks_of_certificates(Certificates(files=(file,))))

        assert levels([missing, senseless]) == [Level.FAILED] * 2

    async def test_a_server_is_looked_at_as_a_client_does(self, certificates: Issued) -> None:
        """Whom the system does not trust is told apart from whom the given authority does."""
        tls = ServerTLS(certificates.certificate, certificates.key)
        async with answering(HttpResponse(200), tls) as address:
            trusted = await found(
                checks_of_certificates(
                    Certificates(servers=(address,), client=ClientTLS(certificates.ca))
                )
            )
            unknown = await found(checks_of_certificates(Certificates(servers=(address,))))
            misnamed = await found(
                checks_of_certificates(
                    Certificates(
                        servers=(address,),
                        client=ClientTLS(certificates.ca, server_name="example.org"),
                    )
                )
            )

        assert levels(trusted) == [Level.OK] * 3
        assert "HTTP/2" in trusted[2].found
        assert (unknown[2].level, misnamed[2].level) == (Level.FAILED, Level.FAILED)
        assert "example.org" in misnamed[2].found

    async def test_an_expired_one_is_seen_at_its_server(self, tmp_path: Path) -> None:
        ca, now = trustme.CA(), datetime.now(UTC)
        issued = ca.issue_cert(
            "127.0.0.1", not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
        )
        files = [tmp_path / name for name in ("ca.pem", "certificate.pem", "key.pem")]
        ca.cert_pem.write_to_path(str(files[0]))
        issued.cert_chain_pems[0].write_to_path(str(files[1]))
        issued.private_key_pem.write_to_path(str(files[2]))
        async with answering(HttpResponse(200), ServerTLS(files[1], files[2])) as address:
            wanted = Certificates(servers=(address,), client=ClientTLS(files[0]))
            dates, _, verdict = await found(checks_of_certificates(wanted))

        assert levels([dates, verdict]) == [Level.FAILED] * 2
        assert "expired" in verdict.found


class TestProject:
    """Apps and ports."""

    pytestmark = pytest.mark.anyio

    async def test_an_app_is_imported_in_a_process_of_its_own(self) -> None:
        good, bad = await found(
            checks_of_apps(["tests.integration.serve_echo:app", "tests.integration.nothing:app"])
        )

        assert levels([good, bad]) == [Level.OK, Level.FAILED]
        assert "no module 'tests.integration.nothing'" in bad.found

    async def test_who_listens_at_a_port_is_told(self, free_tcp_port: int) -> None:
        async with answering(HttpResponse(200)) as address:
            free, taken = await found(checks_of_ports([str(free_tcp_port), address]))

        assert levels([free, taken]) == [Level.OK, Level.WARNING]
        assert "taken by process" in taken.found


class TestGateway:
    """A gateway's file, and what it names."""

    pytestmark = pytest.mark.anyio

    async def test_all_that_it_names_is_looked_at(
        self, tmp_path: Path, certificates: Issued, redis_url: str, free_tcp_port: int
    ) -> None:
        (tmp_path / "redis").write_text(redis_url)
        body = json.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=False)]}).encode()
        async with (
            Server([HealthService()], listen="127.0.0.1:0", grace=0.0) as server,
            answering(HttpResponse(200, [], body)) as issuer,
        ):
            file = tmp_path / "gateway.toml"
            file.write_text(f"""
                listen = ["127.0.0.1:{free_tcp_port}", "unix:{tmp_path}/socket"]
                descriptors = ["python:bascule_shop.gateway:descriptor_set"]
                tls = {{certificate = "{certificates.certificate}", key = "{certificates.key}"}}
                auth = {{issuer = "i", audience = "a", jwks_url = "http://{issuer}/jwks"}}
                redis.url_file = "redis"
                [upstreams]
                "user.UserService" = "static:///{server.addresses[0]}"
                "order.OrderService" = "127.0.0.1:1"
                """)
            findings = await found(checks_of_gateway(file, timeout=PATIENCE))

        by_subject = {each.subject: each for each in findings}
        assert "routes" in by_subject[str(file)].found
        assert by_subject[f"127.0.0.1:{free_tcp_port}"].found == "is free"
        assert by_subject[f"grpc static:///{server.addresses[0]}"].level is Level.OK
        assert by_subject["grpc 127.0.0.1:1"].level is Level.FAILED
        assert by_subject[f"jwks http://{issuer}/jwks"].level is Level.OK
        assert any(each.subject.startswith("redis ") for each in findings)
        assert str(certificates.certificate) in by_subject

    async def test_what_is_wrong_with_it_is_named_by_its_key(self, tmp_path: Path) -> None:
        file = tmp_path / "gateway.toml"
        file.write_text("lisen = 'x'")

        (wrong,) = await found(checks_of_gateway(file, timeout=PATIENCE))

        assert wrong.level is Level.FAILED
        assert "lisen" in wrong.found

    async def test_looking_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """Neither a key nor a certificate for development is made."""
        file = tmp_path / "gateway.toml"
        file.write_text("""
            listen = "127.0.0.1:0"
            descriptors = ["python:bascule_shop.gateway:descriptor_set"]
            tls.development = "dev"
            auth.development = "dev"
            [upstreams]
            "user.UserService" = "127.0.0.1:1"
            """)

        good, _ = await found(checks_of_gateway(file, timeout=PATIENCE))

        assert good.level is Level.OK
        assert [each.name async for each in anyio.Path(tmp_path).iterdir()] == [file.name]


class TestExamining:
    """The way in which checks are run."""

    pytestmark = pytest.mark.anyio

    async def test_one_that_breaks_or_hangs_does_not_hide_the_others(self) -> None:
        async def break_(_: Report) -> None:
            raise RuntimeError("broken")

        async def hang(report: Report) -> None:
            report.ok("this was found before")
            await anyio.sleep_forever()

        async def work(report: Report) -> None:
            report.ok("works")

        findings = await examine(
            [Check("t", name, look) for name, look in (("b", break_), ("h", hang), ("w", work))],
            timeout=0.2,
        )

        assert [(each.subject, each.level, each.found) for each in findings] == [
            ("b", Level.FAILED, "RuntimeError: broken"),
            ("h", Level.OK, "this was found before"),
            ("h", Level.FAILED, "no answer within 0.2 s"),
            ("w", Level.OK, "works"),
        ]

    async def test_the_machine_that_runs_the_tests_is_fit(self) -> None:
        findings = await found(
            [*checks_of_machine(), Check("clocks", "this machine", look_at_steps)]
        )

        assert [each for each in findings if each.level is Level.FAILED] == []
        assert {each.topic for each in findings} == {
            *("python", "event loops", "extras", "tools", "limits", "clocks")
        }


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://me:geheim@host:6379/0?x=geheim", "redis://host:6379/0"),
        ("mysql://me:ge/h?e#i@m@host/name", "mysql://host/name"),
        ("sqlite:////var/orders.db", "sqlite:////var/orders.db"),
        ("static:///127.0.0.1:1", "static:///127.0.0.1:1"),
        ("127.0.0.1:8500", "127.0.0.1:8500"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert without_password(address) == shown


@pytest.mark.parametrize(
    ("limits", "version", "allowed"),
    [
        (">=6.9,<7", "6.9.0", True),
        (">=6.9,<7", "6.10.2", True),
        (">=6.9,<7", "7.0.0", False),
        (">=6.9,<7", "6.8.5", False),
        (">=2.0.41", "2.1.0b1", True),
        ("==2", "2.0.0", True),
        ("", "0.1", True),
    ],
)
def test_a_version_is_held_against_what_is_asked_for(
    limits: str, version: str, allowed: bool
) -> None:
    requirement = Requirement(f"some-thing[part]{limits} ; extra == 'redis'")

    assert (requirement.name, requirement.extra) == ("some-thing", "redis")
    assert requirement.allows(version) is allowed


def test_more_keys_than_certificates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="as many --certificate"):
        list(checks_of_certificates(Certificates(keys=(tmp_path,))))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_command_prints_json_and_fails_by_its_exit_code(loop: str, free_tcp_port: int) -> None:
    arguments = ["doctor", "--json", "--loop", loop, "--target", f"127.0.0.1:{free_tcp_port}"]
    ran = CliRunner().invoke(app, arguments)

    document = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert not document["ok"]
    (failed,) = [each for each in document["findings"] if each["level"] == "failed"]
    assert failed["subject"] == f"grpc 127.0.0.1:{free_tcp_port}"


def test_the_command_prints_a_list_for_people() -> None:
    ran = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "100"})

    assert ran.exit_code == 0, ran.output
    assert "none is named; to look at one: --redis URL, or set SHOP_EVENTS" in ran.stdout

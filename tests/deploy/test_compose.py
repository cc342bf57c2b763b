"""compose.yaml: what it promises of each container, and that all that names another thing names one that is there."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.deploy.composition import (
    COMPOSE,
    FILE,
    FOLDER,
    OWN,
    ROOT,
    SERVICES,
    listens,
    ports,
    secrets,
)
from tests.tools import tool

from bascule_shop.app import SERVICES as SHOP

if TYPE_CHECKING:
    from pathlib import Path

each_service = pytest.mark.parametrize("name", SERVICES)
each_own = pytest.mark.parametrize("name", OWN)

#: What the mission names, in the versions that it asks for.
WANTED = {
    "consul": {8500},
    "jaeger": {4317, 4318, 16686},
    "prometheus": {9090},
    "alertmanager": {9093},
    "grafana": {3000},
    "gateway": {8443},
}
#: The port that each image listens at.
PORTS = {"mysql": 3306, "mongo": 27017, "redis": 6379}


def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    """Without a daemon, from another folder, and with warnings of variables that are not set as errors."""
    ran = subprocess.run(
        [tool("docker-compose"), "--file", FILE, "config", "--quiet"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_everything_of_the_shop_is_there() -> None:
    assert {"gateway", *SHOP} == set(OWN)
    for name, wanted in WANTED.items():
        assert set(ports(SERVICES[name])) == wanted
    images = sorted(image(name)[0] for name in SERVICES)
    assert [images.count(each) for each in ("mysql", "mongo", "redis")] == [2, 1, 1]
    assert image("jaeger")[1].startswith("2."), "Jaeger 1 has reached its end of life"


@each_service
def test_its_image_is_pinned(name: str) -> None:
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(-alpine)?", image(name)[1])


@each_service
def test_it_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    uid, _, gid = service["user"].partition(":")
    assert int(uid) > 0, "root"
    assert gid.isdigit()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    limits = service["deploy"]["resources"]["limits"]
    assert 0 < float(limits["cpus"]) <= 1
    assert re.fullmatch(r"\d+m", limits["memory"])
    assert 0 < limits["pids"] <= 256
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


@each_service
def test_it_waits_for_what_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
        assert reached(name) & reached(other), f"no network leads from {name} to {other}"


@each_service
def test_what_it_mounts_is_there_and_nothing_else_is_declared(name: str) -> None:
    service = SERVICES[name]
    for each in service.get("volumes", []):
        source = each.partition(":")[0]
        if not source.startswith("."):
            assert source in COMPOSE["volumes"]
        else:
            assert (FOLDER / source).exists()
            assert each.endswith(":ro")
    for each in service.get("configs", []):
        assert (FOLDER / COMPOSE["configs"][each["source"]]["file"]).is_file()
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert reached(name) <= set(COMPOSE["networks"])


@pytest.mark.parametrize("kind", ["volumes", "secrets", "networks"])
def test_what_is_declared_is_used(kind: str) -> None:
    used = {
        each.partition(":")[0] for service in SERVICES.values() for each in service.get(kind, [])
    }
    assert set(COMPOSE[kind]) == {each for each in used if not each.startswith(".")}


def test_only_the_gateway_is_open_to_other_machines() -> None:
    for name, service in SERVICES.items():
        for address, _ in ports(service).values():
            assert address == "127.0.0.1" or name == "gateway"
    assert {name for name in SERVICES if "edge" in reached(name)} == {"gateway"}
    stores = {name for name in SERVICES if image(name)[0] in {"mysql", "mongo"}}
    for name in stores:
        assert reached(name) == {"data"}
        assert not ports(SERVICES[name])
    assert all(COMPOSE["networks"][name] == {"internal": True} for name in ("mesh", "data"))
    taken = [outer for service in SERVICES.values() for outer in ports(service).values()]
    assert len({port for _, port in taken}) == len(taken)


def test_no_secret_is_in_the_environment_or_in_a_command(tmp_path: Path) -> None:
    made = secrets(tmp_path / "secrets")
    text = FILE.read_text()
    assert not [name for name, secret in made.items() if secret in text]
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|DATABASE_|EVENTS|_URL", key):
                if key == "MYSQL_DATABASE":
                    continue
                assert key.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_the_secrets_are_made_once_and_kept_from_other_users(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = secrets(folder)
    assert set(COMPOSE["secrets"]) <= set(made)
    assert {each["file"] for each in COMPOSE["secrets"].values()} == {
        f"secrets/{name}" for name in COMPOSE["secrets"]
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # Containers have users of their own: only the folder keeps others out.
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    passwords = [secret for name, secret in made.items() if name.endswith("_password")]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in passwords)
    assert len(set(passwords)) == len(passwords)
    (folder / "grafana_password").unlink()
    again = secrets(folder)
    assert {name for name in made if made[name] != again[name]} == {"grafana_password"}
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", FOLDER / "secrets/x"], cwd=ROOT, check=False
    )
    assert ignored.returncode == 0, "git would take the secrets"


@each_own
def test_urls_lead_to_services_that_it_reaches_and_may_enter(name: str, tmp_path: Path) -> None:
    made = secrets(tmp_path / "secrets")
    service = SERVICES[name]
    for secret in service["secrets"]:
        url = urlsplit(made[secret])
        target = SERVICES[str(url.hostname)]
        assert url.port == PORTS[image(str(url.hostname))[0]]
        assert reached(name) & reached(str(url.hostname))
        assert url.hostname in service["depends_on"]
        if url.scheme == "mysql":
            database = url.path[1:]
            assert made[f"{database}_password"] == url.password
            own = target["environment"]["MYSQL_DATABASE"]
            assert (database, url.username) in {
                (own, target["environment"]["MYSQL_USER"]),
                ("payment", "payment"),
            }
        elif url.scheme == "mongodb":
            script = (FOLDER / "product-database.js").read_text()
            assert f'getSiblingDB("{url.path[1:]}")' in script
            assert f'user: "{url.username}"' in script
            assert made["product_password"] == url.password


@each_own
def test_the_projects_own_containers_are_alike(name: str) -> None:
    service = SERVICES[name]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert service["image"] == f"bascule-shop:{version}"
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    environment = service["environment"]
    assert environment["OTEL_SERVICE_NAME"] == name
    collector = urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert collector.port in ports(SERVICES[str(collector.hostname)])
    assert reached(name) & reached(str(collector.hostname))
    assert ":9464/readyz" in " ".join(service["healthcheck"]["test"])
    if name != "gateway":
        assert service["command"] == ["bascule_shop", "serve", name]
        assert listens(service) == {50051, 9464}
        assert environment["SHOP_CONSUL"] == "consul:8500"


def test_the_gateways_file_names_what_is_there() -> None:
    said = tomllib.loads((FOLDER / "gateway.toml").read_text())
    service = SERVICES["gateway"]
    assert int(said["listen"].rpartition(":")[2]) in ports(service)
    assert said["operations"]["listen"].endswith(":9464")
    assert 9464 not in ports(service), "what operators ask is not for the world"
    assert said["redis"]["url_file"].removeprefix("/run/secrets/") in service["secrets"]
    for name, target in said["upstreams"].items():
        assert target == f"consul://consul:8500/{name}"
        assert name in SHOP.values()
    state = next(each for each in service["volumes"] if each.startswith("gateway-state:"))
    for table in ("tls", "auth"):
        assert said[table]["development"].startswith(state.partition(":")[2])
    (config,) = service["configs"]
    assert config["target"] in service["command"]


def image(name: str) -> tuple[str, str]:
    """The image of a service: its last name, and its tag."""
    path, _, tag = SERVICES[name]["image"].rpartition(":")
    return path.rpartition("/")[2], tag


def reached(name: str) -> set[str]:
    return set(SERVICES[name]["networks"])


def test_the_readme_tells_each_port_and_who_may_call_it() -> None:
    rows = re.findall(
        r"^\| ([\d, ]+) \| (.+?) \|", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    told = {int(port): whom for cell, whom in rows for port in cell.split(", ")}
    published = {port: where for each in SERVICES.values() for port, where in ports(each).items()}
    for port, (address, outer) in published.items():
        assert port == outer
        whom = "this machine" if address == "127.0.0.1" else "every machine"
        assert told.pop(port) == whom
    inner = {port for name in SHOP for port in listens(SERVICES[name])} | set(PORTS.values())
    assert told == dict.fromkeys(inner, "no one")


def test_all_containers_together_fit_where_the_readme_says() -> None:
    (said,) = re.findall(r"(\d+) GB of memory", (FOLDER / "README.md").read_text())
    limits = [each["deploy"]["resources"]["limits"]["memory"] for each in SERVICES.values()]
    assert sum(int(each.removesuffix("m")) for each in limits) <= int(said) * 1000

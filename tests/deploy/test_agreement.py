"""What Compose starts is what Prometheus scrapes, Grafana asks, Kubernetes runs and the documentation tells."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.deploy.composition import COMPOSE, DEPLOY, FOLDER, OWN, ROOT, SERVICES, listens, ports

from bascule_shop.app import SERVICES as SHOP

PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
JOBS = {each["job_name"]: each for each in PROMETHEUS["scrape_configs"]}
MANIFESTS: list[dict[str, Any]] = [
    each
    for path in sorted((DEPLOY / "k8s/base").glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
    if each
]
OPERATIONS = 9464
IMAGE = SERVICES["gateway"]["image"]
#: All but the page on `bascule new`, which speaks of another project's files.
DOCUMENTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *DEPLOY.rglob("*.md")])
    if path.name != "new-project.md"
]


def mounted(name: str, target: str) -> str:
    """What a container has at a path."""
    (found,) = (each for each in SERVICES[name]["volumes"] if each.split(":")[1] == target)
    return str((FOLDER / found.split(":")[0]).resolve().relative_to(DEPLOY))


@pytest.mark.parametrize("name", OWN)
def test_prometheus_finds_every_replica_where_it_counts(name: str) -> None:
    (found,) = JOBS[name]["dns_sd_configs"]
    assert (found["names"], found["port"]) == ([name], OPERATIONS)
    assert JOBS[name].get("metrics_path", "/metrics") == "/metrics"
    assert JOBS[name].get("scheme", "http") == "http"
    assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES[name]["networks"])
    if name in SHOP:
        assert OPERATIONS in listens(SERVICES[name])


def test_prometheus_asks_for_nothing_that_does_not_run() -> None:
    for name, job in JOBS.items():
        assert name in SERVICES
        for each in job.get("static_configs", []):
            for target in each["targets"]:
                host, port = target.split(":")
                assert host in {name, "localhost"}
                assert int(port) in ports(SERVICES[name])
    (alerting,) = PROMETHEUS["alerting"]["alertmanagers"]
    assert alerting["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES["alertmanager"]["networks"])


def test_prometheus_has_its_rules_where_it_looks_for_them() -> None:
    assert mounted("prometheus", "/etc/prometheus/prometheus.yml") == "prometheus/prometheus.yml"
    assert (
        mounted("alertmanager", "/etc/alertmanager/alertmanager.yml")
        == "prometheus/alertmanager.yml"
    )
    folder = DEPLOY / mounted("prometheus", "/etc/prometheus/rules")
    for pattern in PROMETHEUS["rule_files"]:
        assert list(folder.parent.glob(pattern))


def test_grafana_has_its_dashboards_and_reaches_what_they_ask() -> None:
    provisioning = DEPLOY / mounted("grafana", "/etc/grafana/provisioning")
    for file in (provisioning / "datasources").iterdir():
        for source in yaml.safe_load(file.read_text())["datasources"]:
            url = urlsplit(source["url"])
            target = SERVICES[str(url.hostname)]
            assert url.port in ports(target)
            assert set(target["networks"]) & set(SERVICES["grafana"]["networks"])
    for file in (provisioning / "dashboards").iterdir():
        for provider in yaml.safe_load(file.read_text())["providers"]:
            folder = DEPLOY / mounted("grafana", provider["options"]["path"])
            assert list(folder.glob("*.json"))


def test_kubernetes_runs_the_same_image_as_the_same_user_at_the_same_ports() -> None:
    (kustomization,) = (each for each in MANIFESTS if each["kind"] == "Kustomization")
    (image,) = kustomization["images"]
    assert f"{image['name']}:{image['newTag']}" == IMAGE
    deployments = [each for each in MANIFESTS if each["kind"] == "Deployment"]
    assert set(OWN) <= {each["metadata"]["name"] for each in deployments}
    told = str(deployments)
    assert set(re.findall(r"'containerPort': (\d+)", told)) == {"50051", "8443", str(OPERATIONS)}
    user, group = SERVICES["gateway"]["user"].split(":")
    assert set(re.findall(r"'runAsUser': (\d+)", told)) == {user}
    assert set(re.findall(r"'runAsGroup': (\d+)", told)) == {group}
    settings = dict(
        each.split("=", 1)
        for generated in kustomization["configMapGenerator"]
        for each in generated.get("literals", [])
    )
    for name in ("SHOP_LISTEN", "SHOP_OPERATIONS"):
        assert settings[name] == SERVICES["user"]["environment"][name]
    here, there = (
        urlsplit(each["OTEL_EXPORTER_OTLP_ENDPOINT"])
        for each in (SERVICES["user"]["environment"], settings)
    )
    assert (here.scheme, here.port) == (there.scheme, there.port)


def test_annotations_lead_prometheus_to_the_same_place() -> None:
    found = [
        each["spec"]["template"]["metadata"]["annotations"]
        for each in MANIFESTS
        if each["kind"] == "Deployment"
        and "annotations" in each["spec"]["template"].get("metadata", {})
    ]
    assert found
    for each in found:
        assert each["prometheus.io/port"] == str(OPERATIONS)
        assert each["prometheus.io/path"] == "/metrics"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_the_image_and_the_files_as_they_are(path: Any) -> None:
    text = path.read_text()
    assert set(re.findall(r"bascule-shop:[\w.]+\w", text)) <= {IMAGE}
    for each in re.findall(r"`(deploy/[\w./-]+)`", text):
        if each != "deploy/compose/secrets":
            assert (ROOT / each).exists(), f"{each} is not there"


def test_what_compose_mounts_of_others_is_all_that_they_ship() -> None:
    """Nothing lies in ``deploy/grafana`` or beside the rules that no container sees."""
    seen = {
        (FOLDER / each.split(":")[0]).resolve()
        for service in SERVICES.values()
        for each in service.get("volumes", [])
        if each.startswith(".")
    }
    assert {each.resolve() for each in (DEPLOY / "grafana").iterdir()} <= seen
    assert COMPOSE["name"] == "bascule-shop"


def test_one_version_of_each_image_is_named_everywhere() -> None:
    """In Compose, in the cluster for development, and in what `bascule new` makes."""
    here = {each["image"].rpartition(":")[0]: each["image"] for each in SERVICES.values()}
    files = [
        *(DEPLOY / "k8s").rglob("*.yaml"),
        *(ROOT / "python/bascule/cli/_new/project").rglob("*.y*ml.in"),
    ]
    named = {
        image
        for path in files
        for image in re.findall(r"^ *(?:- )?image: (\S+:\S+)$", path.read_text(), re.MULTILINE)
    }
    others = {each for each in named if each.rpartition(":")[0] in here}
    assert others
    assert others <= set(here.values())

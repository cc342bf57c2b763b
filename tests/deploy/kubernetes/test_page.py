"""What docs/how-to/deploy-kubernetes.md shows is so."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import yaml
from tests.deploy.kubernetes.manifests import FOLDER, OVERLAYS, ROOT, built
from tests.tools import tool

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs/how-to/deploy-kubernetes.md").read_text()


def samples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[str]:
    return [line for block in samples("sh") for line in block.splitlines()]


def test_its_builds_build() -> None:
    builds = [line.split() for line in commands() if line.startswith("kustomize ")]
    assert builds
    for _, *arguments in builds:
        ran = subprocess.run(
            [tool("kustomize"), *arguments], cwd=ROOT, capture_output=True, timeout=60, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_its_commands_name_what_there_is() -> None:
    folders = re.findall(r"kubectl .*-k (\S+)", "\n".join(commands()))
    assert folders
    for folder in folders:
        assert (ROOT / folder / "kustomization.yaml").exists()
    for namespace, arguments in re.findall(r"kubectl -n (\S+) (.*)", "\n".join(commands())):
        overlay = next(name for name in OVERLAYS if namespace in built(name).of("Namespace"))
        names = re.findall(r"\b(deployment|deploy|service)/(\S+)", arguments)
        assert names
        for kind, name in names:
            assert name in built(overlay).of("Service" if kind == "service" else "Deployment")
    for name in re.findall(r"`((?:base|overlays|components)/[\w./-]+)`", PAGE):
        assert (FOLDER / name).exists(), name


def test_an_overlay_of_one_s_own(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "deploy/k8s")
    (sample,) = samples("yaml")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(sample)
    ran = subprocess.run(
        [tool("kustomize"), "build", mine], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    documents = list(yaml.safe_load_all(ran.stdout))
    images = {
        container["image"]
        for each in documents
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
    }
    assert {image.partition("@")[0] for image in images} == {"registry.acme.example/bascule-shop"}
    assert len(documents) == len(built("prod").documents)
    assert "login.acme.example" in ran.stdout
    assert "login.example.com" not in ran.stdout
    (sql,) = (each for each in documents if each["metadata"]["name"] == "sql")
    assert sql["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.8.0.0/24"}}]


def test_its_figures_are_those_of_the_manifests() -> None:
    manifests = built("prod")
    order = manifests.shop()["order"]
    said = manifests.environment(order.container)
    assert f"`SHOP_PROPAGATION` seconds ({said['SHOP_PROPAGATION']})" in PAGE
    assert f"`SHOP_GRACE` seconds ({said['SHOP_GRACE']})" in PAGE
    end = order.spec["terminationGracePeriodSeconds"]
    assert f"`terminationGracePeriodSeconds` ({end})" in PAGE
    scaler = manifests.of("HorizontalPodAutoscaler")["order"]["spec"]
    assert f"{scaler['minReplicas']} to {scaler['maxReplicas']}, by CPU" in PAGE
    startup = order.container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 120
    liveness = order.container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 30
    assert order.deployment["spec"]["progressDeadlineSeconds"] == 300
    assert order.deployment["spec"]["minReadySeconds"] == 5

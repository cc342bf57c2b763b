"""What kustomize makes of deploy/k8s, and how its parts find each other."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tests.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.parent.name for path in FOLDER.glob("overlays/*/kustomization.yaml"))

Document = dict[str, Any]


@cache
def build_text(overlay: str) -> str:
    """Build an overlay, or the base."""
    folder = FOLDER / overlay if overlay == "base" else FOLDER / "overlays" / overlay
    built = subprocess.run(
        [tool("kustomize"), "build", folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return built.stdout


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a Deployment."""

    name: str
    deployment: Document

    @property
    def template(self) -> Document:
        found: Document = self.deployment["spec"]["template"]
        return found

    @property
    def spec(self) -> Document:
        found: Document = self.template["spec"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def container(self) -> Document:
        """The one that serves."""
        (found,) = self.spec["containers"]
        return dict(found)

    @property
    def containers(self) -> list[Document]:
        """All of them, with those that come before."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    def of_the_shop(self) -> bool:
        return self.labels.get("app.kubernetes.io/part-of") == "bascule-shop"


class Manifests:
    """What an overlay is built to."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.documents: list[Document] = list(yaml.safe_load_all(build_text(overlay)))

    def of(self, kind: str) -> dict[str, Document]:
        """Those of a kind by their names."""
        return {each["metadata"]["name"]: each for each in self.documents if each["kind"] == kind}

    def pods(self) -> dict[str, Pods]:
        """By the names of their Deployments."""
        return {name: Pods(name, each) for name, each in self.of("Deployment").items()}

    def shop(self) -> dict[str, Pods]:
        """Without the stores."""
        return {name: each for name, each in self.pods().items() if each.of_the_shop()}

    @property
    def gateway_toml(self) -> str:
        """The file that the gateway reads."""
        (found,) = (
            each["data"]["gateway.toml"]
            for name, each in self.of("ConfigMap").items()
            if name.startswith("gateway-")
        )
        return str(found)

    def environment(self, container: Document, **fields: str) -> dict[str, str]:
        """What a container finds in its environment, as far as the manifests say it.

        :param fields: what stands for values that only the cluster or a Secret knows, by variable
        """
        found: dict[str, str] = {}
        for each in container.get("envFrom", ()):
            found |= self.of("ConfigMap")[each["configMapRef"]["name"]]["data"]
        for each in container.get("env", ()):
            value = each.get("value", fields.get(each["name"], f"<{each['name']}>"))
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
            found[each["name"]] = value
        return found

    def flows(self) -> set[tuple[str, str, int]]:
        """Who may call whom, at which port: what both the policies of the one and of the other let through."""
        pods = self.pods()
        return {
            (source.name, target.name, port)
            for source in pods.values()
            for target in pods.values()
            for port in target.ports.values()
            if self._leaves(source, target, port) and self._enters(source, target, port)
        }

    def outside(self) -> set[tuple[str, str, int, str]]:
        """Who may call what is not of the namespace: network or namespace, port, protocol."""
        return {
            (pods.name, _where(peer), port["port"], port["protocol"])
            for pods in self.pods().values()
            for rule in self._rules(pods, "Egress")
            for peer in rule["to"]
            for port in rule["ports"]
            if set(peer) != {"podSelector"}
        }

    def callers_from_outside(self) -> set[tuple[str, str, int]]:
        """Whom others may call: from where, and at which port."""
        return {
            (pods.name, _where(peer), _number(port["port"], pods))
            for pods in self.pods().values()
            for rule in self._rules(pods, "Ingress")
            for peer in rule.get("from", [{}])
            for port in rule["ports"]
            if set(peer) != {"podSelector"}
        }

    def _rules(self, pods: Pods, direction: str) -> Iterator[Document]:
        for policy in self.of("NetworkPolicy").values():
            spec = policy["spec"]
            if direction in spec["policyTypes"] and selects(spec["podSelector"], pods.labels):
                yield from spec.get(direction.lower(), ())

    def _leaves(self, source: Pods, target: Pods, port: int) -> bool:
        return any(
            _meets(rule["to"], target) and port in [each["port"] for each in rule["ports"]]
            for rule in self._rules(source, "Egress")
        )

    def _enters(self, source: Pods, target: Pods, port: int) -> bool:
        return any(
            _meets(rule.get("from", ()), source)
            and port in [_number(each["port"], target) for each in rule["ports"]]
            for rule in self._rules(target, "Ingress")
        )


@cache
def built(overlay: str) -> Manifests:
    """What an overlay, or the base, is built to, for those who only read it."""
    return Manifests(overlay)


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a selector means what has these labels. An empty one means everything."""
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def _meets(peers: list[Document], pods: Pods) -> bool:
    return any(
        selects(peer["podSelector"], pods.labels) for peer in peers if set(peer) == {"podSelector"}
    )


def _number(port: int | str, pods: Pods) -> int:
    return pods.ports[port] if isinstance(port, str) else port


def _where(peer: Document) -> str:
    if "ipBlock" in peer:
        return str(peer["ipBlock"]["cidr"])
    if "namespaceSelector" in peer:
        return str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    return "anywhere"

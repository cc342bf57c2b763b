"""What kustomize builds is what Kubernetes takes: by its schemas, and by a real API server.

Nothing runs there: pods are shown to the server's admission, which would refuse them.
"""

from __future__ import annotations

import json
import re
import subprocess
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml
from tests.deploy.kubernetes.cluster import Cluster, cluster_of
from tests.deploy.kubernetes.manifests import OVERLAYS, Manifests, build_text, built
from tests.tools import tool

from bascule.discovery.kubernetes import KubernetesResolver, KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bascule.testing.servers import KubeApiServer

#: The oldest version that will do, and that of the API server that the manifests are applied to.
VERSIONS = ("1.31.0", "1.36.0")

CRDS = Path(__file__).with_name("crds.yaml")

Document = dict[str, Any]


@pytest.fixture(scope="module", params=VERSIONS)
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema for each kind that is used, each whole in itself: kubeconform reads no others offline."""
    folder = tmp_path_factory.mktemp("schemas")
    (source,) = tool("kubernetes-validate").parent.glob(
        f"lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema/v{request.param}-local-strict"
    )
    shared = json.loads((source / "_definitions.json").read_text())["$defs"]
    kinds = {
        (each["apiVersion"], each["kind"]) for name in OVERLAYS for each in built(name).documents
    }
    custom = {each["spec"]["names"]["kind"]: each for each in yaml.safe_load_all(CRDS.read_text())}
    for version, kind in kinds:
        group, _, number = version.rpartition("/")
        parts = [kind.lower(), *([group.partition(".")[0]] if group else []), number]
        name = "-".join(parts) + ".json"
        if kind in custom:
            schema = closed(custom[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        else:
            text = (source / name).read_text().replace("/api/_definitions.json#", "#")
            schema = json.loads(text) | {"$defs": reached(text, shared)}
        (folder / name).write_text(json.dumps(schema))
    return folder


def reached(text: str, shared: Document) -> Document:
    """The definitions that a schema refers to, and that those refer to."""
    found: Document = {}
    texts = [text]
    while texts:
        for name in re.findall(r'"#/\$defs/([^"]+)"', texts.pop()):
            if name not in found:
                found[name] = shared[name]
                texts.append(json.dumps(shared[name]))
    return found


def closed(schema: Any) -> Any:
    """Let no object have more than what is named, as the API server does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(each) for name, each in schema.items()}
    if "properties" in made and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def conform(schemas: Path, text: str) -> dict[str, Any]:
    """What kubeconform says, and nothing that it fetched."""
    place = schemas / "{{.ResourceKind}}{{.KindSuffix}}.json"
    ran = subprocess.run(
        [
            *(tool("kubeconform"), "-strict", "-summary", "-output=json", "-n=2"),
            *(f"-schema-location={place}", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    assert bool(ran.returncode) is bool(found["summary"]["invalid"] + found["summary"]["errors"])
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_of_its_schema(schemas: Path, overlay: str) -> None:
    found = conform(schemas, build_text(overlay))
    assert found["resources"] == []
    assert found["summary"]["valid"] == len(built(overlay).documents)
    assert found["summary"]["skipped"] == 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in one of production's manifests.

    :ivar says: of what the API server says about it
    """

    kind: str
    name: str
    edit: Callable[[Document], object]
    says: str

    def document(self, *, spoilt: bool) -> Document:
        """The manifest under another name, with the fault or as it would be right."""
        document = deepcopy(built("prod").of(self.kind)[self.name])
        document["metadata"]["name"] += "-2"
        if spoilt:
            self.edit(document)
        return document


def pod_spec(document: Document) -> Document:
    found: Document = document["spec"]["template"]["spec"]
    return found


def container(document: Document) -> Document:
    found: Document = pod_spec(document)["containers"][0]
    return found


#: What is wrong already by the schemas ...
MALFORMED = {
    "a field that there is not": Fault(
        "Deployment",
        "user",
        lambda d: pod_spec(d).update(terminationGraceSeconds=60),
        "field not declared in schema",
    ),
    "a probe's misspelt field": Fault(
        "Deployment",
        "user",
        lambda d: container(d)["livenessProbe"]["grpc"].update(name="liveness"),
        "field not declared in schema",
    ),
    "a number in words": Fault(
        "Deployment", "user", lambda d: d["spec"].update(replicas="three"), "expected numeric"
    ),
    "a scrape without a selector": Fault(
        "ServiceMonitor", "shop", lambda d: d["spec"].pop("selector"), "spec.selector: Required"
    ),
    "a scrape's misspelt field": Fault(
        "ServiceMonitor",
        "shop",
        lambda d: d["spec"]["endpoints"][0].update(every="15s"),
        "field not declared in schema",
    ),
}
#: ... and what only the server finds.
MEANINGLESS = {
    "a selector of other pods": Fault(
        "Deployment",
        "user",
        lambda d: d["spec"]["template"]["metadata"].update(labels={"a": "b"}),
        "`selector` does not match template `labels`",
    ),
    "a volume that is not there": Fault(
        "Deployment",
        "user",
        lambda d: container(d)["volumeMounts"].append({"name": "lost", "mountPath": "/lost"}),
        'Not found: \\"lost\\"',
    ),
    "less than it asks for": Fault(
        "Deployment",
        "user",
        lambda d: container(d)["resources"]["limits"].update(memory="1Mi"),
        "must be less than or equal to memory limit",
    ),
    "no pod may be away and none more": Fault(
        "Deployment",
        "user",
        lambda d: d["spec"]["strategy"]["rollingUpdate"].update(maxSurge=0),
        "may not be 0 when `maxSurge` is 0",
    ),
    "a budget of both kinds": Fault(
        "PodDisruptionBudget",
        "user",
        lambda d: d["spec"].update(minAvailable=2),
        "cannot be both set",
    ),
    "fewer at most than at least": Fault(
        "HorizontalPodAutoscaler",
        "user",
        lambda d: d["spec"].update(maxReplicas=1),
        "must be greater than or equal to `minReplicas`",
    ),
    "a network that is none": Fault(
        "NetworkPolicy",
        "redis",
        lambda d: d["spec"]["egress"][0]["to"][0]["ipBlock"].update(cidr="10.20.3.0/99"),
        "10.20.3.0/99",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_found_by_its_schema(schemas: Path, what: str) -> None:
    for spoilt in (False, True):
        found = conform(schemas, yaml.safe_dump(MALFORMED[what].document(spoilt=spoilt)))
        assert found["summary"]["invalid"] == int(spoilt)


@pytest.fixture(scope="module")
def cluster(kube_server: KubeApiServer) -> Iterator[Cluster]:
    """A cluster that knows the kinds of Prometheus' operator, and has the namespaces."""
    with cluster_of(kube_server) as made:
        for each in yaml.safe_load_all(CRDS.read_text()):
            made.apply(each).raise_for_status()
        for each in yaml.safe_load_all(CRDS.read_text()):
            made.until_served("monitoring.coreos.com/v1", each["spec"]["names"]["kind"])
        yield made


@pytest.fixture(scope="module")
def production(cluster: Cluster) -> Manifests:
    """Production, applied."""
    manifests = built("prod")
    for document in manifests.documents:
        cluster.apply(document).raise_for_status()
    return manifests


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_manifest(cluster: Cluster, overlay: str) -> None:
    """Tried first, then in earnest; without a warning, and a second time without a change."""
    manifests = built(overlay)
    (namespace,) = manifests.of("Namespace").values()
    cluster.apply(namespace).raise_for_status()
    classes = manifests.of("PriorityClass").values()
    for dry_run in (True, False):
        for document in manifests.documents:
            answer = cluster.apply(document, dry_run=dry_run)
            assert answer.is_success, answer.text
            assert "warning" not in answer.headers, answer.headers["warning"]
    for document in manifests.documents:
        first = cluster.apply(document).json()["metadata"]["resourceVersion"]
        assert cluster.apply(document).json()["metadata"]["resourceVersion"] == first
    assert bool(classes) is (overlay != "dev")


@pytest.mark.parametrize("what", [*MALFORMED, *MEANINGLESS])
def test_what_is_wrong_is_refused(cluster: Cluster, production: Manifests, what: str) -> None:
    fault = (MALFORMED | MEANINGLESS)[what]
    right = cluster.apply(fault.document(spoilt=False), dry_run=True)
    assert right.is_success, right.text
    answer = cluster.apply(fault.document(spoilt=True))
    assert answer.is_client_error or answer.is_server_error
    assert fault.says in answer.text


def pod_of(manifests: Manifests, name: str) -> Document:
    """A pod as the controller of a Deployment would make it."""
    template = manifests.pods()[name].template
    (namespace,) = manifests.of("Namespace")
    metadata = {**template["metadata"], "name": f"{name}-pod", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_let_in_where_security_is_restricted(cluster: Cluster, overlay: str) -> None:
    manifests = built(overlay)
    for document in manifests.documents:
        if document["kind"] in {"Namespace", "PriorityClass"}:
            cluster.apply(document).raise_for_status()
    for name in manifests.pods():
        answer = cluster.create(pod_of(manifests, name), dry_run=True)
        assert answer.is_success, answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("runAsNonRoot", False), ("seccompProfile", {"type": "Unconfined"}), ("runAsUser", 0)],
)
def test_a_pod_that_is_not_locked_is_kept_out(
    cluster: Cluster, production: Manifests, field: str, value: object
) -> None:
    pod = deepcopy(pod_of(production, "user"))
    pod["spec"]["securityContext"][field] = value
    answer = cluster.create(pod, dry_run=True)
    assert answer.status_code == 403, answer.text
    assert "restricted" in answer.json()["message"]


def test_accounts_have_the_rights_that_they_need_and_no_more(
    cluster: Cluster, production: Manifests
) -> None:
    asked = [
        (verb, group, resource)
        for group, resources in (
            ("", ["pods", "services", "secrets", "configmaps", "endpoints"]),
            ("apps", ["deployments"]),
            ("discovery.k8s.io", ["endpointslices"]),
        )
        for resource in resources
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
    ]
    for account in production.of("ServiceAccount"):
        allowed = {each for each in asked if cluster.may(account, "shop", *each)}
        needed = {("list", "discovery.k8s.io", "endpointslices")}
        needed |= {("watch", "discovery.k8s.io", "endpointslices")}
        assert allowed == (needed if account in {"gateway", "order"} else set()), account
    for account in ("gateway", "order"):
        assert not cluster.may(
            account, "shop", "list", "discovery.k8s.io", "endpointslices", within="default"
        )


@pytest.mark.anyio
async def test_order_finds_user_with_the_token_of_its_pods(
    cluster: Cluster, production: Manifests, kube_server: KubeApiServer
) -> None:
    """By the target of its manifest, the port's name of the Service, and the Role: as in a pod. Others may not."""
    targets = production.environment(production.shop()["order"].container)["SHOP_PEERS"].split()
    service, _, port = next(
        each.removeprefix("user=k8s:///") for each in targets if each.startswith("user=")
    ).partition(":")
    ports = [
        {"name": each["name"], "port": each["port"], "protocol": "TCP"}
        for each in production.of("Service")[service]["spec"]["ports"]
    ]
    cluster.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service}-1",
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.244.0.7"], "conditions": {"ready": True}},
                {"addresses": ["10.244.0.8"], "conditions": {"ready": False}},
            ],
            "ports": ports,
        }
    ).raise_for_status()

    def resolver(account: str) -> KubernetesResolver:
        settings = KubernetesSettings(
            kube_server.url,
            "shop",
            token=cluster.token("shop", account),
            ca=kube_server.certificate.read_text(),
        )
        return KubernetesResolver(service, port=port, settings=settings)

    with anyio.fail_after(30):
        async with resolver("order").watch() as states:
            state = await anext(states)
        assert state.problem is None
        assert [each.address for each in state.endpoints] == ["10.244.0.7:50051"]
        async with resolver("payment").watch() as states:
            state = await anext(states)
        assert state.problem is not None
        assert "403" in state.problem

"""Rules that every overlay of deploy/k8s keeps, read from what kustomize makes of it."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.deploy.composition import SERVICES as COMPOSED
from tests.deploy.composition import listens, ports
from tests.deploy.kubernetes.manifests import (
    FOLDER,
    OVERLAYS,
    ROOT,
    Manifests,
    Pods,
    built,
    selects,
)

from bascule.app._life import LIVENESS, READINESS, STARTUP
from bascule.gateway import GatewayFile
from bascule.observe._catalog import FAMILIES
from bascule_shop import gateway
from bascule_shop._services import CALLED, SERVICES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates

#: Seconds that closing a resource may take, see bascule.app.Resource.
CLOSING = 10.0

SHORT = {full: short for short, full in SERVICES.items()}

#: Which stores each service has, in the overlay that brings them along.
STORES = {
    "mysql": {"user", "payment", "order"},
    "mongo": {"product"},
    "redis": {"gateway", "user", "order"},
}


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return built(request.param)


@pytest.fixture
def production() -> Manifests:
    return built("prod")


def version() -> str:
    found = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    return str(found)


def test_every_service_of_the_shop_is_there(manifests: Manifests) -> None:
    assert set(manifests.shop()) == {*SERVICES, "gateway"}


def test_nothing_is_taken_from_elsewhere_when_it_is_built() -> None:
    for path in FOLDER.rglob("kustomization.yaml"):
        assert "://" not in re.sub(r"(?m)^ *- [A-Z_]+=.*|literals: .*", "", path.read_text()), path


def test_containers_are_pinned_limited_and_locked(manifests: Manifests) -> None:
    for pods in manifests.pods().values():
        for container in pods.containers:
            _, _, tag = container["image"].rpartition(":")
            assert re.fullmatch(r"\d+\.\d+\.\d+(-[a-z]+)?", tag), container["image"]
            for of in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][of])
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        security = pods.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] >= 999
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pods.spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pods.spec)


def test_the_shop_s_image_is_of_this_version(manifests: Manifests) -> None:
    images = {each["image"] for pods in manifests.shop().values() for each in pods.containers}
    assert {image.rpartition("/")[2] for image in images} == {f"bascule-shop:{version()}"}


def test_every_service_is_probed(manifests: Manifests) -> None:
    for pods in manifests.pods().values():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert probe in pods.container, (pods.name, probe)
            assert pods.container[probe]["timeoutSeconds"] <= pods.container[probe]["periodSeconds"]


def test_probes_ask_for_what_the_app_answers(manifests: Manifests) -> None:
    for name in SERVICES:
        pods = manifests.shop()[name]
        for kind, service in (
            ("startupProbe", STARTUP),
            ("livenessProbe", LIVENESS),
            ("readinessProbe", READINESS),
        ):
            assert pods.container[kind]["grpc"] == {"port": pods.ports["grpc"], "service": service}


def test_a_service_listens_where_it_is_called_and_scraped(manifests: Manifests) -> None:
    for pods in manifests.shop().values():
        notes = pods.template["metadata"]["annotations"]
        assert notes["prometheus.io/port"] == str(pods.ports["operations"])
    for name in SERVICES:
        pods = manifests.shop()[name]
        said = manifests.environment(pods.container)
        assert said["SHOP_LISTEN"] == f"0.0.0.0:{pods.ports['grpc']}"
        assert said["SHOP_OPERATIONS"] == f"0.0.0.0:{pods.ports['operations']}"
        assert pods.container["command"] + pods.container["args"] == ["bascule_shop", "serve", name]
        (before,) = pods.spec["initContainers"]
        assert before["command"] + before["args"][:2] == ["bascule_shop", "migrate", name]


def test_what_ends_has_time_to_end(manifests: Manifests) -> None:
    """The wait for endpoints, the drain and the closing all fit before SIGKILL, without a preStop hook."""
    settings = tomllib.loads(manifests.gateway_toml)
    for name, pods in manifests.shop().items():
        said = manifests.environment(pods.container)
        propagation, grace = float(said["SHOP_PROPAGATION"]), float(said["SHOP_GRACE"])
        if name == "gateway":
            propagation, grace = settings["propagation"], settings["grace"]
        probe = pods.container["readinessProbe"]
        assert propagation > 0
        assert pods.spec["terminationGracePeriodSeconds"] > propagation + grace + CLOSING
        assert "lifecycle" not in pods.container
        assert probe["periodSeconds"] <= propagation


def test_a_roll_out_takes_no_pod_away_before_the_next_is_ready(manifests: Manifests) -> None:
    for pods in manifests.shop().values():
        spec = pods.deployment["spec"]
        assert spec["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        }
        startup = pods.container["startupProbe"]
        patience = startup["periodSeconds"] * startup["failureThreshold"]
        assert spec["progressDeadlineSeconds"] > patience + spec["minReadySeconds"]
        assert spec["minReadySeconds"] > 0


def test_selectors_mean_one_deployment_each(manifests: Manifests) -> None:
    pods = manifests.pods().values()
    for kind in ("Service", "PodDisruptionBudget"):
        for name, each in manifests.of(kind).items():
            selector = each["spec"]["selector"]
            if kind == "Service":
                selector = {"matchLabels": selector}
            meant = [one.name for one in pods if selects(selector, one.labels)]
            assert meant == [name.removesuffix("-operations")]
    for one in pods:
        assert selects(one.deployment["spec"]["selector"], one.labels)
        for spread in one.spec.get("topologySpreadConstraints", ()):
            assert selects(spread["labelSelector"], one.labels)
            assert set(spread["matchLabelKeys"]) == {"app.kubernetes.io/name", "pod-template-hash"}


def test_nothing_flows_that_is_not_named(manifests: Manifests) -> None:
    """Without this policy, who is meant by no other would be open."""
    assert manifests.of("NetworkPolicy")["deny-all"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_every_policy_means_somebody(manifests: Manifests) -> None:
    for policy in manifests.of("NetworkPolicy").values():
        spec = policy["spec"]
        assert any(
            selects(spec["podSelector"], pods.labels) for pods in manifests.pods().values()
        ), policy["metadata"]["name"]


def test_services_lead_to_ports_that_there_are(manifests: Manifests) -> None:
    pods = manifests.pods()
    for name, each in manifests.of("Service").items():
        meant = pods[name.removesuffix("-operations")]
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= set(meant.ports)
    for name in SERVICES:
        spec = manifests.of("Service")[name]["spec"]
        assert spec["clusterIP"] == "None"
        ports = {port["name"]: port["port"] for port in spec["ports"]}
        assert ports == pods[name].ports


def test_what_is_referred_to_is_there(manifests: Manifests) -> None:
    """Secrets of production are the exception: the page says which have to be made."""
    page = (ROOT / "docs/how-to/deploy-kubernetes.md").read_text()
    documented = set(re.findall(r"^\| `([a-z-]+)` \| ([a-z`, .]+) \|", page, re.MULTILINE))
    assert documented
    keys = {name: set(re.findall(r"`([a-z.]+)`", text)) for name, text in documented}
    secrets = {name: set(each["data"]) for name, each in manifests.of("Secret").items()}
    for pods in manifests.pods().values():
        for name, key in secrets_of(pods):
            known = secrets if manifests.overlay == "dev" else keys
            assert key in known.get(name, ()), (pods.name, name, key)
        volumes = {volume["name"]: volume for volume in pods.spec["volumes"]}
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in manifests.of("ConfigMap")
        for container in pods.containers:
            assert {each["name"] for each in container["volumeMounts"]} <= set(volumes)
        account = pods.spec.get("serviceAccountName")
        assert account is None or account in manifests.of("ServiceAccount")


def secrets_of(pods: Pods) -> set[tuple[str, str]]:
    """Names and keys of the secrets that pods cannot start without."""
    found = {
        (ref["name"], ref["key"])
        for container in pods.containers
        for each in container.get("env", ())
        if (ref := each.get("valueFrom", {}).get("secretKeyRef")) and not ref.get("optional")
    }
    for secret in (volume["secret"] for volume in pods.spec["volumes"] if "secret" in volume):
        tls = [{"key": "tls.crt"}, {"key": "tls.key"}]
        found |= {(secret["secretName"], item["key"]) for item in secret.get("items", tls)}
    return found


def test_secrets_of_the_shop_are_files_that_nobody_else_reads(manifests: Manifests) -> None:
    for name, pods in manifests.shop().items():
        for volume in pods.spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440
        for container in pods.containers:
            refs = [each for each in container.get("env", ()) if "secretKeyRef" in str(each)]
            assert {each["name"] for each in refs} <= {"CONSUL_HTTP_TOKEN"}
            mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
            assert mounts["/etc/stores"]["readOnly"]
            (stores,) = (each for each in pods.spec["volumes"] if each["name"] == "stores")
            files = {f"/etc/stores/{each['path']}" for each in stores["secret"]["items"]}
            said = manifests.environment(container)
            named = {value for key, value in said.items() if key.endswith("_FILE")}
            if name == "gateway":
                named.add(tomllib.loads(manifests.gateway_toml)["redis"]["url_file"])
            assert named <= files
            if container is pods.spec["containers"][0]:
                assert named == files


def test_only_throw_away_secrets_are_committed() -> None:
    for overlay in ("base", *OVERLAYS):
        if overlay != "dev":
            assert not built(overlay).of("Secret"), overlay


def test_tokens_are_for_those_who_ask_the_api_server(manifests: Manifests) -> None:
    consul = manifests.overlay.endswith("consul")
    asking = set()
    for name, pods in manifests.pods().items():
        said = manifests.environment(pods.container)
        targets = [value for value in said.values() if "k8s:///" in value]
        asking |= {name} if targets else set()
        automatic = pods.spec.get("automountServiceAccountToken", False)
        assert automatic is bool(targets), name
        for target in re.findall(r"k8s:///(\S+)", " ".join(targets)):
            service, _, port = target.partition(":")
            spec = manifests.of("Service")[service]["spec"]
            assert port in {each["name"] for each in spec["ports"]}
    assert asking == (set() if consul else {"gateway", "order"})
    for account in manifests.of("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    roles = manifests.of("Role")
    assert set(roles) == (set() if consul else {"discover-services"})
    for role in roles.values():
        assert role["rules"] == [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            }
        ]
        subjects = manifests.of("RoleBinding")["discover-services"]["subjects"]
        assert {each["name"] for each in subjects} == asking
    assert not manifests.of("ClusterRole")
    assert not manifests.of("ClusterRoleBinding")


def test_clients_find_everyone_they_call(manifests: Manifests) -> None:
    shop = manifests.shop()
    order = manifests.environment(shop["order"].container)
    if manifests.overlay.endswith("consul"):
        assert "SHOP_PEERS" not in order
        for name in SERVICES:
            said = manifests.environment(
                shop[name].container, HOST_IP="10.1.1.1", POD_IP="10.2.2.2"
            )
            assert said["SHOP_CONSUL"] == "10.1.1.1:8500"
            assert said["SHOP_ADVERTISE"] == f"10.2.2.2:{shop[name].ports['grpc']}"
    else:
        assert {each.partition("=")[0] for each in order["SHOP_PEERS"].split()} == set(CALLED)
        assert "SHOP_CONSUL" not in order


def test_calls_flow_where_they_are_made_and_nowhere_else(manifests: Manifests) -> None:
    pods = manifests.pods()
    grpc = pods["user"].ports["grpc"]
    expected = {("gateway", SHORT[service], grpc) for service in gateway.SERVICES}
    expected |= {("order", called, grpc) for called in CALLED}
    for store, callers in STORES.items():
        if store in pods:
            expected |= {(caller, store, pods[store].ports["store"]) for caller in callers}
    # What may be called from anywhere, may be from within too, if the caller may leave.
    assert manifests.flows() == expected


def test_what_leaves_the_namespace(manifests: Manifests) -> None:
    flows = manifests.outside()
    expected = set()
    for name in manifests.shop():
        expected |= {(name, "kube-system", 53, "UDP"), (name, "kube-system", 53, "TCP")}
        expected |= {(name, "observability", 4318, "TCP")}
    anywhere = "0.0.0.0/0"
    if manifests.overlay.endswith("consul"):
        expected |= {(name, anywhere, 8500, "TCP") for name in manifests.shop()}
    else:
        expected |= {
            (n, anywhere, port, "TCP") for n in ("gateway", "order") for port in (443, 6443)
        }
    if manifests.overlay != "dev":
        expected |= {("gateway", anywhere, 443, "TCP")}  # the keys of those who issue tokens
        for cidr, port, store in (
            ("10.20.1.0/24", 3306, "mysql"),
            ("10.20.2.0/24", 27017, "mongo"),
            ("10.20.3.0/24", 6379, "redis"),
        ):
            expected |= {(caller, cidr, port, "TCP") for caller in STORES[store]}
    assert flows == expected


def test_what_enters_the_namespace(manifests: Manifests) -> None:
    shop = manifests.shop()
    expected = {(name, "monitoring", each.ports["operations"]) for name, each in shop.items()}
    expected |= {("gateway", "anywhere", shop["gateway"].ports["https"])}
    assert manifests.callers_from_outside() == expected


def test_traces_go_where_they_may(manifests: Manifests) -> None:
    for name, pods in manifests.shop().items():
        said = manifests.environment(pods.container, OTEL_SERVICE_NAME=name)
        endpoint = said["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert re.fullmatch(r"http://[a-z-]+\.observability:4318", endpoint)
        by_label = next(e for e in pods.container["env"] if e["name"] == "OTEL_SERVICE_NAME")
        path = by_label["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.labels['app.kubernetes.io/name']"
        assert pods.labels["app.kubernetes.io/name"] == name


def test_production_has_three_of_each_and_one_may_be_away(production: Manifests) -> None:
    for name, pods in production.shop().items():
        # The autoscaler has the say: an apply must not take back what it has done.
        assert "replicas" not in pods.deployment["spec"]
        scaler = production.of("HorizontalPodAutoscaler")[name]["spec"]
        assert scaler["scaleTargetRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name,
        }
        assert 3 <= scaler["minReplicas"] < scaler["maxReplicas"]
        assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 60
        assert production.of("PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1
        assert pods.spec["priorityClassName"] in production.of("PriorityClass")
    service = production.of("Service")["gateway"]["spec"]
    assert service["type"] == "LoadBalancer"
    assert [each["name"] for each in service["ports"]] == ["https"]


def test_the_development_overlay_is_small() -> None:
    development = built("dev")
    assert {pods.deployment["spec"]["replicas"] for pods in development.pods().values()} == {1}
    assert not development.of("HorizontalPodAutoscaler")
    assert set(development.pods()) == {*SERVICES, "gateway", *STORES}


def test_what_is_scraped_is_what_counts(production: Manifests) -> None:
    spec = production.of("ServiceMonitor")["shop"]["spec"]
    (endpoint,) = spec["endpoints"]
    scraped = {
        each["metadata"]["labels"][spec["jobLabel"]]
        for each in production.of("Service").values()
        if selects(spec["selector"], each["metadata"]["labels"])
        and endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}
    }
    assert scraped == set(production.shop())


def test_what_is_scraped_keeps_its_labels(production: Manifests) -> None:
    """A label of the operator's of the same name would move one of ours to another, which no dashboard asks for."""
    (endpoint,) = production.of("ServiceMonitor")["shop"]["spec"]["endpoints"]
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["action"] == "labeldrop"
    added = {"namespace", "service", "pod", "container", "endpoint", "job", "instance"}
    kept = {label for label in added if not re.fullmatch(relabeling["regex"], label)}
    ours = {label for family in FAMILIES.values() for label in family.labels}
    assert "service" in ours
    assert not kept & ours


def test_the_alerts_are_those_of_prometheus(production: Manifests) -> None:
    made = {name: each["spec"] for name, each in production.of("PrometheusRule").items()}
    files = {path.stem: path.read_text() for path in (ROOT / "deploy/prometheus/rules").iterdir()}
    assert files
    assert made == {name: yaml.safe_load(text) for name, text in files.items()}


def test_images_and_ports_are_those_of_compose() -> None:
    """What is tried in one way is tried in the same versions in the other."""
    composed = {each["image"] for each in COMPOSED.values()}
    used = {each["image"] for pods in built("dev").pods().values() for each in pods.containers}
    assert used <= composed
    for name in SERVICES:
        assert listens(COMPOSED[name]) == set(built("dev").shop()[name].ports.values())
    assert set(ports(COMPOSED["gateway"])) == {built("dev").shop()["gateway"].ports["https"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_s_file_says_what_the_shop_s_own_says(
    overlay: str, tmp_path: Path, certificates: Certificates
) -> None:
    """Read by the gateway itself, with the environment of the manifests."""
    manifests = built(overlay)
    pods = manifests.shop()["gateway"]
    assert pods.container["command"] == ["bascule"]
    *command, path = pods.container["args"]
    assert command == ["gateway", "-c"]
    (mounted,) = (e for e in pods.container["volumeMounts"] if e["mountPath"] == "/etc/bascule")
    assert path == f"{mounted['mountPath']}/gateway.toml"
    file = tmp_path / "gateway.toml"
    file.write_text(manifests.gateway_toml)
    said = manifests.environment(pods.container)
    if overlay == "dev":
        for name in ("SHOP_TLS_DEVELOPMENT", "SHOP_AUTH_DEVELOPMENT"):
            assert said[name].startswith("/tmp/")
            said[name] = str(tmp_path / name)
    else:
        assert said["SHOP_TLS_CERTIFICATE"] == "/etc/tls/tls.crt"
        assert said["SHOP_TLS_KEY"] == "/etc/tls/tls.key"
        said |= {
            "SHOP_TLS_CERTIFICATE": str(certificates.certificate),
            "SHOP_TLS_KEY": str(certificates.key),
        }
    (tmp_path / "redis").write_text("redis://redis/0\n")
    read = GatewayFile.read(
        file, environment=said, over={"redis": {"url_file": str(tmp_path / "redis")}}
    )
    assert read.operations == f"0.0.0.0:{pods.ports['operations']}"
    assert read.config.listen == (f"0.0.0.0:{pods.ports['https']}",)
    assert read.config.tls is not None
    assert (read.development_key is None) is (overlay != "dev")
    scheme = "consul:///{}" if overlay.endswith("consul") else "k8s:///{}:grpc"
    for service in gateway.SERVICES:
        name = service if overlay.endswith("consul") else SHORT[service]
        assert read.config.upstream(service).target == scheme.format(name)
    shipped = tomllib.loads((ROOT / "python/bascule_shop/gateway.toml").read_text())
    own = tomllib.loads(manifests.gateway_toml)
    for table in ("route", "routes", "limits"):
        assert own[table] == shipped[table]

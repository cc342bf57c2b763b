"""An API server of Kubernetes as `kubectl apply --server-side` uses it."""

from __future__ import annotations

import json
import re
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.testing.servers import KubeApiServer

Document = dict[str, Any]


class Cluster:
    """Calls the API as somebody who may do everything."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def apply(self, document: Document, *, dry_run: bool = False) -> httpx.Response:
        """Apply by the server, which refuses unknown fields."""
        parameters = {"fieldManager": "deploy", "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            parameters["dryRun"] = "All"
        return self.client.patch(
            self._path(document) + "/" + quote(document["metadata"]["name"]),
            params=parameters,
            content=json.dumps(document),
            headers={"content-type": "application/apply-patch+yaml"},
        )

    def create(self, document: Document, *, dry_run: bool = False) -> httpx.Response:
        parameters = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self.client.post(self._path(document), params=parameters, json=document)

    def until_served(self, version: str, kind: str, within: float = 60.0) -> None:
        """Wait until a kind that was just defined can be used."""
        end = time.monotonic() + within
        while not self._find(version, kind):
            assert time.monotonic() < end, f"{version} {kind} is not served"
            time.sleep(0.1)

    def may(
        self,
        account: str,
        namespace: str,
        verb: str,
        group: str,
        resource: str,
        *,
        within: str | None = None,
    ) -> bool:
        """Whether a service account may do something in its namespace, or within another one."""
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{namespace}:{account}",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {
                    "namespace": within or namespace,
                    "verb": verb,
                    "group": group,
                    "resource": resource,
                },
            },
        }
        answer = self.create(asked)
        answer.raise_for_status()
        return bool(answer.json()["status"]["allowed"])

    def token(self, namespace: str, account: str) -> str:
        """A token as a pod of this account would find it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.client.post(path, json={"spec": {"expirationSeconds": 3600}})
        answer.raise_for_status()
        return str(answer.json()["status"]["token"])

    def watches(self, resource: str) -> int:
        """How many watches of a kind within a namespace are open, as the server counts them itself."""
        text = self.client.get("/metrics").raise_for_status().text
        lines = re.findall(r"^apiserver_longrunning_requests\{(.*)\} (\S+)$", text, re.MULTILINE)
        return sum(
            int(float(number))
            for labels, number in lines
            if {f'resource="{resource}"', 'scope="namespace"', 'verb="WATCH"'}
            <= set(labels.split(","))
        )

    def _path(self, document: Document) -> str:
        version, kind = document["apiVersion"], document["kind"]
        found = self._find(version, kind)
        assert found, f"{version} {kind} is not served"
        plural, namespaced = found
        place = f"/namespaces/{document['metadata']['namespace']}" if namespaced else ""
        return f"{_root(version)}{place}/{plural}"

    def _find(self, version: str, kind: str) -> tuple[str, bool] | None:
        if (version, kind) not in self._kinds:
            answer = self.client.get(_root(version))
            if answer.status_code != httpx.codes.OK:
                return None
            for each in answer.json()["resources"]:
                if "/" not in each["name"]:
                    self._kinds[version, each["kind"]] = each["name"], each["namespaced"]
        return self._kinds.get((version, kind))


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


@contextmanager
def cluster_of(server: KubeApiServer) -> Iterator[Cluster]:
    """Reach a server."""
    with httpx.Client(
        base_url=server.url,
        verify=ssl.create_default_context(cafile=server.certificate),
        headers={"authorization": f"Bearer {server.token}"},
        trust_env=False,
        timeout=30.0,
    ) as client:
        yield Cluster(client)

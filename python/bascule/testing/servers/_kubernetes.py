"""The API server of Kubernetes, with an etcd."""

from __future__ import annotations

import json
import secrets
import ssl
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bascule.testing.servers._http import get
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EtcdServer", "KubeApiServer"]


class EtcdServer(LocalServer):
    """An etcd of one member."""

    program: ClassVar[str] = "etcd"
    hint: ClassVar[str] = "`apt-get install etcd-server`, as root"
    port_count: ClassVar[int] = 2

    @property
    def url(self) -> str:
        """For clients."""
        return f"http://{self.address}"

    def _command(self, program: Path) -> list[str]:
        peer = f"http://127.0.0.1:{self.ports[1]}"
        return [
            str(program),
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _answers(self) -> bool:
        # It answers with an error as long as there is no leader.
        return get(self.port, "/health") is not None


class KubeApiServer(LocalServer):
    """An API server without nodes: objects are stored, validated and watched, and nothing runs.

    Its etcd starts and ends with it. Call :attr:`url` with ``Authorization: Bearer`` and
    :attr:`token`, who may do everything, and trust :attr:`certificate`; or use :attr:`kubeconfig`.
    """

    program: ClassVar[str] = "kube-apiserver"
    hint: ClassVar[str] = (
        "`python3 scripts/provision.py kube-apiserver` in a checkout of bascule, "
        "or https://kubernetes.io/releases/download"
    )

    def __init__(self, *, folder: Path | None = None, patience: float = 60.0) -> None:
        super().__init__(folder=folder, patience=patience)
        #: What stores its objects.
        self.etcd = EtcdServer(folder=self.folder / "etcd", patience=patience)
        #: The bearer token of a user who may do everything.
        self.token: str = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Of the API."""
        return f"https://{self.address}"

    @property
    def certificate(self) -> Path:
        """What clients have to trust, in PEM; it is there once the server answers."""
        return self.data / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """How clients reach it, in a file for ``KUBECONFIG``."""
        return self.folder / "kubeconfig.json"

    @classmethod
    def find(cls) -> Path:
        """Answer with the path of the program.

        :raises MissingProgramError: if it or etcd is not installed
        """
        EtcdServer.find()
        return super().find()

    def _prepare(self) -> None:
        key = generate_private_key(SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        (self.data / "accounts.key").write_bytes(key)

    def start(self) -> None:
        """Start it and its etcd, see :meth:`LocalServer.start`."""
        self.etcd.start()
        super().start()

    def stop(self, within: float = 20.0) -> None:
        """Ask both to end, see :meth:`LocalServer.stop`."""
        super().stop(within)
        self.etcd.stop(within)

    def wipe(self) -> None:
        """Forget all objects. Only while it does not run."""
        super().wipe()
        self.etcd.wipe()

    def close(self) -> None:
        """Stop both, and remove what they had."""
        super().close()
        self.etcd.close()

    def _command(self, program: Path) -> list[str]:
        (self.data / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(kubeconfig))
        return [
            str(program),
            f"--etcd-servers={self.etcd.url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.data}",
            "--service-account-issuer=https://localhost",
            f"--service-account-key-file={self.data / 'accounts.key'}",
            f"--service-account-signing-key-file={self.data / 'accounts.key'}",
            f"--token-auth-file={self.data / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        ]

    def _answers(self) -> bool:
        if not self.certificate.exists():
            return False
        trust = ssl.create_default_context(cafile=self.certificate)
        headers = {"Authorization": f"Bearer {self.token}"}
        # The namespace that objects go to by default is made after it has become ready.
        paths = ("/readyz", "/api/v1/namespaces/default")
        return all(get(self.port, path, headers, trust) is not None for path in paths)

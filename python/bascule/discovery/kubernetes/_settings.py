"""Where the API server is, and what to show it."""

from __future__ import annotations

import base64
import importlib
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KubernetesSettings"]

#: What a pod finds there, see "Accessing the Kubernetes API from a Pod".
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: Bytes of a token or a kubeconfig.
LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """How to reach an API server.

    :ivar url: ``https://host:port``, or ``http://`` for a local proxy (``kubectl proxy``)
    :ivar namespace: of services that are named without one
    :ivar token_file: file with a bearer token, read for each request: Kubernetes replaces it
    :ivar token: bearer token, if there is no file; never shown
    :ivar ca: PEM of the authorities to trust; None for the system's
    :ivar certificate: PEM of a client certificate
    :ivar key: PEM of its key; never shown
    :ivar verify: whether the server's certificate is checked
    """

    url: str
    namespace: str = "default"
    token_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    verify: bool = True

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> KubernetesSettings:
        """Of ``KUBECONFIG``, else of the pod that this runs in, else of ``~/.kube/config``.

        :raises ConfigurationError: if there is none of them, or one cannot be used
        """
        said = os.environ if environment is None else environment
        for path in said.get("KUBECONFIG", "").split(os.pathsep):
            if path:
                return cls.of_kubeconfig(path)
        if said.get("KUBERNETES_SERVICE_HOST"):
            return cls.in_cluster(said)
        home = Path("~/.kube/config").expanduser()
        if home.exists():
            return cls.of_kubeconfig(home)
        message = "no API server of Kubernetes is known: run in a pod, or set KUBECONFIG"
        raise ConfigurationError(message)

    @classmethod
    def in_cluster(
        cls, environment: Mapping[str, str] | None = None, account: Path = ACCOUNT
    ) -> KubernetesSettings:
        """What a pod with a service account has.

        :raises ConfigurationError: if this is none
        """
        said = os.environ if environment is None else environment
        host, port = said.get("KUBERNETES_SERVICE_HOST"), said.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            message = "KUBERNETES_SERVICE_HOST is not set: this is no pod of Kubernetes"
            raise ConfigurationError(message)
        token_file = account / "token"
        if not token_file.exists():
            message = f"{token_file} is missing: let the pod have a service account's token (automountServiceAccountToken)"
            raise ConfigurationError(message)
        namespace = account / "namespace"
        return cls(
            f"https://{f'[{host}]' if ':' in host else host}:{port}",
            _text(namespace).strip() if namespace.exists() else "default",
            token_file,
            ca=_text(account / "ca.crt"),
        )

    @classmethod
    def of_kubeconfig(
        cls, path: str | os.PathLike[str], context: str | None = None
    ) -> KubernetesSettings:
        """What a context says, by default the current one: JSON, or YAML where PyYAML is installed.

        Tokens and client certificates are understood; programs that make credentials (``exec``) and
        passwords are not.

        :raises ConfigurationError: if it cannot be read, or says what is not understood
        """
        folder = Path(path).parent
        config = _document(Path(path))
        try:
            chosen = _named(config, "context", context or config.get("current-context"))
            cluster = _named(config, "cluster", chosen.get("cluster"))
            user = _named(config, "user", chosen.get("user"))
            unknown = {"exec", "auth-provider", "username"} & set(user)
            if unknown:
                message = (
                    f"users with {sorted(unknown)} are not supported: use a token or a certificate"
                )
                raise ConfigurationError(message)
            return cls(
                str(cluster["server"]).rstrip("/"),
                chosen.get("namespace") or "default",
                folder / user["tokenFile"] if user.get("tokenFile") else None,
                user.get("token"),
                _data(cluster, "certificate-authority", folder),
                _data(user, "client-certificate", folder),
                _data(user, "client-key", folder),
                not cluster.get("insecure-skip-tls-verify", False),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"kubeconfig {str(path)!r}: {error}") from error

    def headers(self) -> dict[str, str]:
        """For one request. Blocks while it reads the token.

        :raises OSError: if the token cannot be read
        """
        # A compressed stream would hold back events until a block is full.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        token = self.token if self.token_file is None else _text(self.token_file).strip()
        if token:
            headers["authorization"] = f"Bearer {token}"
        return headers

    def context(self) -> ssl.SSLContext | None:
        """The context for https; None without.

        :raises ConfigurationError: if a certificate or the key cannot be used
        """
        if not self.url.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
            context.set_alpn_protocols(["http/1.1"])
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate is not None:
                self._load_identity(context)
        except (ssl.SSLError, ValueError) as error:
            message = f"certificates for {self.url}: {error}"
            raise ConfigurationError(message) from error
        return context

    def _load_identity(self, context: ssl.SSLContext) -> None:
        """Python takes files only."""
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(f"{self.certificate}\n{self.key or ''}\n")
            file.flush()
            context.load_cert_chain(file.name)


def _text(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(LARGEST)


def _document(path: Path) -> dict[str, Any]:
    try:
        content = _text(path)
        try:
            config = msgspec.json.decode(content)
        except msgspec.DecodeError:
            config = _yaml(content)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"kubeconfig {str(path)!r}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"kubeconfig {str(path)!r}: expected a mapping")
    return config


def _yaml(content: str) -> Any:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        message = "it is no JSON, and YAML needs PyYAML: pip install pyyaml"
        raise ConfigurationError(message) from error
    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ConfigurationError(str(error)) from error


def _named(config: Mapping[str, Any], kind: str, name: Any) -> dict[str, Any]:
    for each in config.get(f"{kind}s") or ():
        if each.get("name") == name:
            found: dict[str, Any] = each[kind]
            return found
    message = f"it has no {kind} {name!r}"
    raise ConfigurationError(message)


def _data(section: Mapping[str, Any], name: str, folder: Path) -> str | None:
    """What stands in the file itself, or in another one."""
    if section.get(f"{name}-data"):
        return base64.b64decode(section[f"{name}-data"]).decode()
    if section.get(name):
        try:
            return _text(folder / section[name])
        except OSError as error:
            raise ConfigurationError(f"{name}: {error}") from error
    return None

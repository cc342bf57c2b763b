"""Where Consul is, and what to show it: by arguments, or by the variables that its own command reads."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bascule.errors import ConfigurationError
from bascule.net import ClientTLS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConsulSettings"]

DEFAULT = "http://127.0.0.1:8500"


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """How to reach one agent.

    :ivar url: ``http://host:port``, ``https://host:port`` or ``unix:///path``
    :ivar token: ACL token; never shown
    :ivar datacenter: where queries go; None for the agent's own
    :ivar tls: for https
    :ivar verify: whether the agent's certificate is checked
    :ivar authorization: of a proxy in front of Consul, ``user:password``; never shown
    """

    url: str
    token: str | None = field(default=None, repr=False)
    datacenter: str | None = None
    tls: ClientTLS | None = None
    verify: bool = True
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls,
        url: str | None = None,
        token: str | None = None,
        tls: ClientTLS | None = None,
        datacenter: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ConsulSettings:
        """Take what is given, and the rest as Consul's own command does.

        That is ``CONSUL_HTTP_ADDR``, ``CONSUL_HTTP_SSL``, ``CONSUL_HTTP_SSL_VERIFY``,
        ``CONSUL_HTTP_TOKEN_FILE`` before ``CONSUL_HTTP_TOKEN``, ``CONSUL_HTTP_AUTH``,
        ``CONSUL_CACERT``, ``CONSUL_CLIENT_CERT``, ``CONSUL_CLIENT_KEY`` and
        ``CONSUL_TLS_SERVER_NAME``. ``CONSUL_NAMESPACE`` and ``CONSUL_PARTITION`` are refused:
        Consul Enterprise's namespaces are not supported, and to look into another one by
        mistake is worse than an error.

        :param environment: instead of the process's own
        :raises ConfigurationError: if a variable or the address cannot be used
        """
        said = os.environ if environment is None else environment
        for name in ("CONSUL_NAMESPACE", "CONSUL_PARTITION"):
            if said.get(name, "default") not in {"", "default"}:
                raise ConfigurationError(
                    f"{name} is {said[name]!r}: namespaces and partitions are not supported; unset it"
                )
        secure = _flag(said, "CONSUL_HTTP_SSL", default=False)
        verify = _flag(said, "CONSUL_HTTP_SSL_VERIFY", default=True)
        if tls is None:
            tls = _tls(said)
        return cls(
            _address(url or said.get("CONSUL_HTTP_ADDR") or DEFAULT, secure),
            _token(said) if token is None else token,
            datacenter,
            tls,
            verify,
            said.get("CONSUL_HTTP_AUTH") or None,
        )

    @property
    def base(self) -> str:
        """The address of requests; over a Unix socket, the host does not matter."""
        return "http://consul" if self.socket is not None else self.url

    @property
    def socket(self) -> str | None:
        """Path of the Unix socket; None for TCP."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix:") else None

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        # A compressed answer could be larger than its limit: loopback needs none.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if self.token:
            headers["x-consul-token"] = self.token
        if self.authorization:
            secret = base64.b64encode(self.authorization.encode()).decode()
            headers["authorization"] = f"Basic {secret}"
        return headers

    def context(self) -> ssl.SSLContext | None:
        """The context for https; None without."""
        if not self.url.startswith("https:"):
            return None
        context = (self.tls or ClientTLS()).context(("http/1.1",))
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _address(text: str, secure: bool) -> str:
    if text.startswith(("unix://", "unix:/")):
        return "unix://" + text.removeprefix("unix:").removeprefix("//")
    url = text if "://" in text else f"http://{text}"
    if secure and url.startswith("http://"):
        url = "https://" + url.removeprefix("http://")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment:
        # Not told as it is: it may hold a password.
        raise ConfigurationError(
            "Consul's address: expected host:port, http://host:port, https://host:port or unix:///path"
        )
    if parts.port is None:
        url = f"{parts.scheme}://{parts.netloc}:{8501 if parts.scheme == 'https' else 8500}{parts.path}"
    return url.rstrip("/")


def _flag(said: Mapping[str, str], name: str, *, default: bool) -> bool:
    """By Go's ``strconv.ParseBool``, which Consul reads it with."""
    text = said.get(name, "")
    if not text:
        return default
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise ConfigurationError(f"{name} is {text!r}: expected true or false")


def _token(said: Mapping[str, str]) -> str | None:
    path = said.get("CONSUL_HTTP_TOKEN_FILE")
    if path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"CONSUL_HTTP_TOKEN_FILE {path!r}: {error}") from error
        if token:
            return token
    return said.get("CONSUL_HTTP_TOKEN") or None


def _tls(said: Mapping[str, str]) -> ClientTLS | None:
    if said.get("CONSUL_CAPATH"):
        raise ConfigurationError(
            "CONSUL_CAPATH is not supported: put the authorities into one file and set CONSUL_CACERT"
        )
    names = ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME")
    ca, certificate, key, server_name = (said.get(name) or None for name in names)
    if not (ca or certificate or key or server_name):
        return None
    return ClientTLS(ca, certificate, key, server_name)

"""Consul."""

from __future__ import annotations

import json
import ssl
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from bascule.testing.servers._http import get
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

    from bascule.net import ServerTLS

__all__ = ["ConsulServer"]


class ConsulServer(LocalServer):
    """An agent that is its own server and keeps keys, sessions and services over restarts.

    :param acl: deny what comes without a token; :attr:`token` then may do everything
    :param tls: serve HTTPS with this identity; ``names`` and ``reload`` are not for Consul
    """

    program: ClassVar[str] = "consul"
    hint: ClassVar[str] = (
        "`python3 scripts/provision.py consul` in a checkout of bascule, "
        "or https://developer.hashicorp.com/consul/install"
    )
    port_count: ClassVar[int] = 3

    def __init__(
        self,
        *,
        acl: bool = False,
        tls: ServerTLS | None = None,
        folder: Path | None = None,
        patience: float = 60.0,
    ) -> None:
        super().__init__(folder=folder, patience=patience)
        self.tls = tls
        #: What may do everything, or None where everybody may.
        self.token: str | None = self._token() if acl else None

    @property
    def url(self) -> str:
        """Of the HTTP API."""
        return f"{'http' if self.tls is None else 'https'}://{self.address}"

    def _token(self) -> str:
        # What a folder was first started with stays valid with its data.
        kept = self.folder / "token"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(uuid.uuid4()))
        return kept.read_text()

    def _command(self, program: Path) -> list[str]:
        http, rpc, serf = self.ports
        settings: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "node",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": str(self.data),
            "ports": {
                ("http" if self.tls is None else "https"): http,
                "server": rpc,
                "serf_lan": serf,
                **dict.fromkeys(("serf_wan", "dns", "grpc", "grpc_tls"), -1),
                ("https" if self.tls is None else "http"): -1,
            },
            "connect": {"enabled": False},
            "disable_update_check": True,
            # A single server need not wait for the votes of others.
            "performance": {"raft_multiplier": 1},
            "ui_config": {"enabled": True},
        }
        if self.tls is not None:
            identity = {"cert_file": str(self.tls.certificate), "key_file": str(self.tls.key)}
            if self.tls.client_ca is not None:
                identity["ca_file"] = str(self.tls.client_ca)
            mutual = self.tls.client_ca is not None
            settings["tls"] = {"https": {**identity, "verify_incoming": mutual}}
        if self.token is not None:
            tokens = {"initial_management": self.token, "agent": self.token}
            settings["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        (self.folder / "consul.json").write_text(json.dumps(settings))
        return [str(program), "agent", f"-config-file={self.folder / 'consul.json'}"]

    def _answers(self) -> bool:
        # It can be written to once the node itself has been written to the catalog.
        headers = {} if self.token is None else {"X-Consul-Token": self.token}
        checks = get(self.port, "/v1/health/node/node?consistent", headers, self._trust())
        return checks is not None and bool(json.loads(checks))

    def _trust(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        trust = ssl.create_default_context()
        # It is our own server; whom it is issued to and by is for the tests' clients to care about.
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        if self.tls.client_ca is not None:
            trust.load_cert_chain(self.tls.certificate, self.tls.key)
        return trust

"""TLS settings: what they allow, what they refuse, and what they say about a bad file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from bascule.errors import ConfigurationError
from bascule.net._devcert import development_certificate
from bascule.net._tls import ClientTLS, ServerTLS


class Files:
    """An authority, a server and a client certificate of it, and one of a stranger."""

    def __init__(self, home: Path) -> None:
        self.ca = home / "ca.pem"
        self.certificate = home / "server.pem"
        self.key = home / "server.key"
        self.client = home / "client-both.pem"
        self.stranger_key = home / "stranger.key"
        self.not_pem = home / "notes.txt"
        authority, stranger = trustme.CA(), trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.ca)
        server.cert_chain_pems[0].write_to_path(self.certificate)
        server.private_key_pem.write_to_path(self.key)
        authority.issue_cert("alice@example.org").private_key_and_cert_chain_pem.write_to_path(
            self.client
        )
        stranger.issue_cert("localhost").private_key_pem.write_to_path(self.stranger_key)
        self.not_pem.write_text("nothing to see here")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Join both contexts in memory; answer the server's and the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = server.wrap_bio(to_server, to_client, server_side=True)
    far = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = {near, far}
    for _ in range(10):
        for end in (far, near):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.discard(end)
        if not waiting:
            # With TLS 1.3 the client is done before the server has seen its certificate.
            with pytest.raises(ssl.SSLWantReadError):
                near.read()
            return near, far
    raise AssertionError("the handshake did not end")


def test_the_protocol_is_negotiated_and_modern(files: Files) -> None:
    server = ServerTLS(files.certificate, files.key).context(["h2", "http/1.1"])
    near, far = handshake(server, ClientTLS(ca=files.ca).context(["http/1.1"]))
    assert near.selected_alpn_protocol() == far.selected_alpn_protocol() == "http/1.1"
    assert far.version() == "TLSv1.3"
    near, _ = handshake(server, ClientTLS(ca=str(files.ca)).context(["h2"]))
    assert near.selected_alpn_protocol() == "h2"


def test_without_alpn_nothing_is_negotiated(files: Files) -> None:
    server = ServerTLS(files.certificate, files.key).context([])
    near, _ = handshake(server, ClientTLS(ca=files.ca).context(["h2"]))
    assert near.selected_alpn_protocol() is None


def test_tls_1_2_has_forward_secrecy_and_aead_only(files: Files) -> None:
    server = ServerTLS(files.certificate, files.key).context(["h2"])
    client = ClientTLS(ca=files.ca).context(["h2"])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    near, _ = handshake(server, client)
    cipher = near.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-")
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


def test_nothing_older_than_tls_1_2_is_offered(files: Files) -> None:
    for context in (
        ServerTLS(files.certificate, files.key).context([]),
        ClientTLS(ca=files.ca).context([]),
        ClientTLS().context([]),
    ):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_client_checks_authority_and_name(files: Files) -> None:
    server = ServerTLS(files.certificate, files.key).context([])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        handshake(server, ClientTLS().context([]))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, ClientTLS(ca=files.ca).context([]), "elsewhere.example")


def test_mutual_tls_wants_a_certificate_of_the_authority(files: Files, tmp_path: Path) -> None:
    server = ServerTLS(files.certificate, files.key, client_ca=files.ca).context([])
    # The client's file holds both its key and its certificate.
    client = ClientTLS(ca=files.ca, certificate=files.client).context([])
    near, _ = handshake(server, client)
    peer = near.getpeercert()
    assert peer is not None
    assert ("email", "alice@example.org") in peer["subjectAltName"]

    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        handshake(server, ClientTLS(ca=files.ca).context([]))
    stranger = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("bob@example.org").private_key_and_cert_chain_pem.write_to_path(
        stranger
    )
    with pytest.raises(ssl.SSLError, match=r"(?i)verify failed"):
        handshake(server, ClientTLS(ca=files.ca, certificate=stranger).context([]))


@pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
def test_a_missing_file_is_named(files: Files, field: str) -> None:
    paths = {"certificate": files.certificate, "key": files.key, field: Path("/nowhere/it.pem")}
    with pytest.raises(ConfigurationError, match=r"'/nowhere/it.pem' cannot be read: No such file"):
        ServerTLS(**paths).context([])


@pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
def test_a_file_that_is_not_pem_is_named(files: Files, field: str) -> None:
    paths = {"certificate": files.certificate, "key": files.key, field: files.not_pem}
    with pytest.raises(ConfigurationError, match=r"notes\.txt' holds no PEM block"):
        ServerTLS(**paths).context([])


def test_a_damaged_file_is_named(files: Files, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    block = "-----BEGIN {0}-----\nbm90aGluZw==\n-----END {0}-----\n".format
    damaged.write_text(block("CERTIFICATE") + block("PRIVATE KEY"))
    with pytest.raises(ConfigurationError, match=r"damaged\.pem' and key '.*' cannot be loaded"):
        ServerTLS(damaged, files.key).context([])
    with pytest.raises(ConfigurationError, match=r"key '.*damaged\.pem' cannot be loaded"):
        ServerTLS(files.certificate, damaged).context([])
    with pytest.raises(ConfigurationError, match=r"authorities '.*damaged\.pem' cannot be loaded"):
        ClientTLS(ca=damaged).context([])


def test_a_key_of_another_certificate_is_refused(files: Files) -> None:
    with pytest.raises(
        ConfigurationError, match=r"stranger\.key' does not belong to .*server\.pem"
    ):
        ServerTLS(files.certificate, files.stranger_key).context([])


def test_an_encrypted_key_is_refused_and_nobody_is_asked(files: Files, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match=r"encrypted\.key' is encrypted"):
        ServerTLS(files.certificate, encrypted).context([])


def test_a_client_key_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'client\.key' is of no use without"):
        ClientTLS(key="client.key")


def test_the_development_certificate_serves_localhost(tmp_path: Path) -> None:
    certificate, key = development_certificate(tmp_path)
    server = ServerTLS(certificate, key).context(["h2"])
    client = ClientTLS(ca=certificate).context(["h2"])
    strict = ssl.create_default_context(cafile=certificate)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1", "::1"):
        handshake(server, client, name)
        handshake(server, strict, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "example.org")

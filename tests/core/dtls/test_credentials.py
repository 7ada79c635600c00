"""How both sides of a DTLS session prove who they are: certificates, keys that both know, and ciphers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.core.dtls.conftest import KEYS
from tests.core.dtls.peers import Client, Server, echo, shake
from tests.core.tls_clients import AUTHORITY

from esockd_core._dtls.facts import describe_dtls
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def client_file(tmp_path: Path) -> Path:
    file = tmp_path / "client.pem"
    issued = AUTHORITY.issue_cert("sensor7.example.org", common_name="sensor 7")
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


def test_a_client_gets_the_certificate_of_the_name_that_it_asks_for(certificates: Path) -> None:
    other = TlsCertificate(certfile=certificates / "other.example.org.pem")
    options = DtlsOptions(certfile=certificates / "localhost.pem", sni={"*.Example.org": other})
    for name, subject in (("OTHER.example.org", "other"), ("localhost", "localhost"), (None, "localhost")):
        client = Client(server_name=name, authority=certificates / "ca.pem")
        session = shake(Server(options), client)
        assert describe_dtls(session).server_name == name
        shown = client.tls.get_peer_certificate(as_cryptography=True)
        assert shown is not None
        assert subject in str(shown.extensions)


def test_the_certificate_of_a_client_is_verified_and_told(certificates: Path, client_file: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    server, client = Server(options), Client(certificate=client_file)
    shown = describe_dtls(shake(server, client)).peer_certificate
    assert shown is not None
    assert (shown.common_name, shown.is_verified) == ("sensor 7", True)
    assert ("DNS", "sensor7.example.org") in shown.subject_alternative_names
    assert echo(server, client, b"hello") == [b"hello"]


def test_a_client_without_a_certificate_is_refused_where_one_is_required(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    client = Client()
    session = shake(Server(options), client)
    assert session.why_failed() == "peer did not return a certificate"
    assert "alert" in str(client.error)


def test_a_client_without_a_certificate_is_served_where_one_is_optional(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem", verify="optional")
    session = shake(Server(options), Client())
    assert session.handshaken
    assert describe_dtls(session).peer_certificate is None


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_a_certificate_that_a_stranger_signed_is_refused(certificates: Path, tmp_path: Path, verify: Any) -> None:
    strange = tmp_path / "strange.pem"
    trustme.CA().issue_cert("sensor").private_key_and_cert_chain_pem.write_to_path(str(strange))
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem", verify=verify)
    client = Client(certificate=strange)
    session = shake(Server(options), client)
    assert not session.handshaken
    assert session.why_failed() == "certificate verify failed: unable to get local issuer certificate"
    assert "unknown ca" in str(client.error)


def test_a_client_proves_itself_by_a_key_that_both_know() -> None:
    server, client = Server(DtlsOptions(psk=KEYS)), Client(psk=(b"sensor 7", b"k" * 32))
    facts = describe_dtls(shake(server, client))
    assert facts.psk_identity == "sensor 7"
    assert facts.cipher is not None
    assert "PSK" in facts.cipher
    assert echo(server, client, b"hello") == [b"hello"]


def test_a_client_with_the_wrong_key_never_gets_in() -> None:
    server, client = Server(DtlsOptions(psk=KEYS)), Client(psk=(b"sensor 7", b"wrong" * 6))
    session = shake(server, client)
    assert not session.handshaken
    assert session.error is None  # what it sends is not genuine, and so passed over until the handshake is too late


@pytest.mark.parametrize("identity", [b"sensor 8", b"\xff\xfe"])
def test_a_client_with_an_unknown_identity_is_told(identity: bytes) -> None:
    client = Client(psk=(identity, b"k" * 32))
    session = shake(Server(DtlsOptions(psk=KEYS)), client)
    assert session.why_failed() == "psk identity not found"
    assert "unknown psk identity" in str(client.error)


def test_a_function_finds_keys_and_its_errors_are_kept() -> None:
    def find(identity: str) -> bytes | None:
        if identity == "broken":
            raise RuntimeError(identity)
        return KEYS.get(identity)

    options = DtlsOptions(psk=find)
    assert shake(Server(options), Client(psk=(b"sensor 7", b"k" * 32))).handshaken
    session = shake(Server(options), Client(psk=(b"broken", b"k" * 32)))
    assert not session.handshaken
    assert isinstance(session.notes.program_error, RuntimeError)


def test_a_function_that_finds_no_bytes_for_a_key_lets_nobody_in() -> None:
    find: Any = lambda identity: 5  # noqa: E731
    session = shake(Server(DtlsOptions(psk=find)), Client(psk=(b"sensor 7", bytes(5))))
    assert not session.handshaken
    assert isinstance(session.notes.program_error, TypeError)


def test_only_ciphers_with_authenticated_encryption_are_offered_by_default(dtls: DtlsOptions) -> None:
    known = [name for name in dtls.context.connect()[0].get_cipher_list() if not name.startswith("TLS_")]
    assert known
    assert all("GCM" in name or "CHACHA20" in name or "CCM" in name for name in known)
    client = Client(ciphers=b"ECDHE-ECDSA-AES256-SHA384")
    assert shake(Server(dtls), client).why_failed() == "no shared cipher"
    assert "handshake failure" in str(client.error)


def test_keys_and_certificates_serve_side_by_side(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", psk=KEYS)
    assert shake(Server(options), Client(ciphers=b"ECDHE-ECDSA-AES128-GCM-SHA256")).handshaken
    assert shake(Server(options), Client(psk=(b"sensor 7", b"k" * 32), ciphers=b"PSK-AES128-GCM-SHA256")).handshaken

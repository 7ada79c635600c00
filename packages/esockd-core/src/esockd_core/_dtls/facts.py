"""The facts about a DTLS session, as those about a TLS connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import crypto

from esockd_core._tls.facts import TlsInfo, describe_certificate

if TYPE_CHECKING:
    from esockd_core._dtls.session import DtlsSession


def describe_dtls(session: DtlsSession) -> TlsInfo:
    """The facts about a session after its handshake."""
    tls = session.tls
    shown = tls.get_peer_certificate()  # verified: who asks for certificates refuses bad ones
    return TlsInfo(
        version=tls.get_protocol_version_name(),
        cipher=tls.get_cipher_name(),
        server_name=session.notes.server_name,
        alpn=tls.get_alpn_proto_negotiated().decode("ascii") or None,
        peer_certificate=None
        if shown is None
        else describe_certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)),
        psk_identity=session.notes.psk_identity,
    )

"""What the DTLS sessions of a listener share, in pyOpenSSL: the extra `dtls`. Python's own `ssl` has no DTLS."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from OpenSSL import SSL

from esockd_core._errors import InvalidOption
from esockd_core._options.certificate import find_by_name, is_visible
from esockd_core._platform.openssl import has_psk, set_psk_callback, why_refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from esockd_core._options.certificate import TlsCertificate
    from esockd_core._options.psk import FindKey

# The only version. DTLS 1.0 is insecure (RFC 8996). DTLS 1.3 (RFC 9147) has other records and another cookie: a newer
# OpenSSL that speaks it must not choose it behind the back of what reads both here.
DTLS_1_2: Final = 0xFEFD
SESSION_OPTIONS: Final = (
    SSL.OP_NO_QUERY_MTU  # a memory BIO has no MTU to ask for
    | SSL.OP_NO_RENEGOTIATION  # a new handshake is a new session
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_TICKET  # a resumed session would outlive a change of authorities or keys
)


# Authenticated encryption only. With the older ciphers, OpenSSL ends a session over one record that is not genuine,
# which a stranger can send in the client's name; RFC 6347 section 4.1.2.7 wants it passed over.
CIPHERS: Final = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:kECDHEPSK+CHACHA20:kPSK+AESGCM:kPSK+CHACHA20:kPSK+AESCCM:!aNULL:!aDSS"
)
RECORD_HEADER_BYTES: Final = 13
AUTHENTICATED: Final = ("GCM", "CHACHA20", "CCM")


class ClientRules(NamedTuple):
    """Whose certificates are taken.

    Attributes:
        authorities: The PEM file with the authorities that may sign them.
        are_required: Whether a client without one is refused.
    """

    authorities: str | Path
    are_required: bool


class HandshakeNotes:
    """What the callbacks of one handshake learn.

    Attributes:
        server_name: The name that the client asked for (SNI); None if it asked for none, or for what no host is called.
        psk_identity: The identity whose key was found; None if there was none.
        refusal: Why a certificate was refused, in OpenSSL's words; empty if none was.
        program_error: What the program's function raised instead of giving a key.
    """

    __slots__ = ("program_error", "psk_identity", "refusal", "server_name")

    def __init__(self) -> None:
        self.server_name: str | None = None
        self.psk_identity: str | None = None
        self.refusal: str = ""
        self.program_error: Exception | None = None


class DtlsContext:
    """Makes the OpenSSL side of sessions.

    Args:
        certificate: The certificate of this side; None if clients are to prove themselves, and it, by keys only.
        sni: Further certificates, by lower-case server name.
        clients: Whose certificates are taken; None asks for none.
        find_key: Finds the pre-shared key of an identity; None uses none.
        alpn: Application protocols, the preferred first.
        ciphers: Ciphers in OpenSSL's form; None takes those of `CIPHERS`.
        mtu: The largest datagram of a handshake, in bytes.

    Raises:
        InvalidOption: If OpenSSL has no such cipher, or this build of it knows no pre-shared keys.
    """

    def __init__(
        self,
        *,
        certificate: TlsCertificate | None,
        sni: Mapping[str, TlsCertificate],
        clients: ClientRules | None,
        find_key: FindKey | None,
        alpn: Sequence[str],
        ciphers: str | None,
        mtu: int,
    ) -> None:
        if find_key is not None and not has_psk():
            reason, hint = "this build of OpenSSL knows no pre-shared keys", "Use certificates."
            raise InvalidOption(reason, option="dtls.psk", hint=hint)
        self.mtu = mtu
        self.takes_certificates: bool = clients is not None
        self._clients = clients
        self._find_key = find_key
        self._alpn = [name.encode() for name in alpn]
        self._ciphers = ciphers or CIPHERS
        self._running = threading.local()  # OpenSSL does not say for which connection it asks for a key
        self._kept: list[object] = []
        self._default = self._make(certificate)
        self._by_name = {name: self._make(own) for name, own in sni.items()}

    def connect(self) -> tuple[SSL.Connection, HandshakeNotes]:
        """A new connection of OpenSSL's, and where its callbacks leave what they learn."""
        connection = SSL.Connection(self._default)
        connection.set_ciphertext_mtu(self.mtu)
        notes = HandshakeNotes()
        connection.set_app_data(notes)
        return connection, notes

    def shake(self, connection: SSL.Connection, notes: HandshakeNotes) -> None:
        """Go on with a handshake.

        Raises:
            OpenSSL.SSL.Error: If it fails, or needs to read more.
        """
        self._running.notes = notes
        try:
            connection.do_handshake()
        finally:
            self._running.notes = None

    def least_record_bytes(self, connection: SSL.Connection) -> int:
        """The body of the shortest record that can be genuine after the handshake; 0 if it is not known.

        OpenSSL 4.0.1 and older end the session over a shorter one, which a stranger can send in the client's name.
        """
        if not any(part in (connection.get_cipher_name() or "") for part in AUTHENTICATED):
            return 0
        return self.mtu - RECORD_HEADER_BYTES - connection.get_cleartext_mtu()

    def _make(self, certificate: TlsCertificate | None) -> SSL.Context:
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_options(SESSION_OPTIONS)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 66 KiB a session instead of 80
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_min_proto_version(DTLS_1_2)
        context.set_max_proto_version(DTLS_1_2)
        context.set_cookie_verify_callback(lambda *_: True)  # it was proven before there was a session
        context.set_tlsext_servername_callback(self._choose_certificate)
        try:
            context.set_cipher_list(self._ciphers.encode())
        except SSL.Error as error:
            reason, hint = "this OpenSSL has no such cipher", "See: openssl ciphers"
            raise InvalidOption(reason, option="dtls.ciphers", value=self._ciphers, hint=hint) from error
        if certificate is not None:
            self._load(context, certificate)
        if self._clients is not None:
            context.load_verify_locations(self._clients.authorities)
            required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self._clients.are_required else 0
            context.set_verify(SSL.VERIFY_PEER | required, self._note_refusal)
        if self._alpn:
            context.set_alpn_select_callback(self._choose_protocol)
        if self._find_key is not None:
            self._kept.append(set_psk_callback(context, partial(self._ask_for_key, self._find_key)))
        return context

    def _load(self, context: SSL.Context, certificate: TlsCertificate) -> None:
        if certificate.password is not None:
            given = certificate.password
            password = given.encode() if isinstance(given, str) else given
            context.set_passwd_cb(lambda *_: password)
        context.use_certificate_chain_file(certificate.certfile)
        context.use_privatekey_file(certificate.keyfile or certificate.certfile)

    def _choose_certificate(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "backslashreplace")
        if not is_visible(name):
            return
        connection.get_app_data().server_name = name
        if (chosen := find_by_name(self._by_name, name)) is not None:
            connection.set_context(chosen)

    def _choose_protocol(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        del connection
        return next((own for own in self._alpn if own in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    def _note_refusal(self, connection: SSL.Connection, certificate: object, number: int, depth: int, ok: int) -> bool:
        del certificate, depth
        if not ok:
            connection.get_app_data().refusal = why_refused(number)
        return bool(ok)

    def _ask_for_key(self, find_key: FindKey, sent: bytes) -> bytes | None:
        notes: HandshakeNotes = self._running.notes
        try:
            identity = sent.decode()
            key = find_key(identity)
            if key is not None:
                if not isinstance(key, bytes):  # bytes(5) would be a key
                    raise TypeError(f"it returned {type(key).__name__} for a key, and not bytes")  # noqa: TRY301
                notes.psk_identity = identity
                return key
        except UnicodeDecodeError:  # RFC 4279 section 5.1: it is UTF-8
            pass
        except Exception as error:  # noqa: BLE001 (the program's; nothing may go up into OpenSSL)
            notes.program_error = error
        return None

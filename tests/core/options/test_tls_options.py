"""Options of TLS: what is wrong with them is said before anything opens."""

from __future__ import annotations

import os
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.patience import PATIENCE_S

from esockd_core import InvalidOption
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.tls import TlsOptions

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with cert.pem and its key.pem, other.pem (another key), ca.pem, junk.pem and a pipe."""
    issued = AUTHORITY.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "junk.pem").write_text("no certificate\n")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_a_certificate_and_its_key_may_be_two_files(files: Path) -> None:
    options = TlsOptions(certfile=files / "cert.pem", keyfile=str(files / "key.pem"))
    assert options.build_context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certfile": "missing.pem"}, r"tls\.certfile is '.*missing\.pem': it does not exist"),
        ({"certfile": "."}, "is a directory"),
        ({"certfile": "pipe"}, r"tls\.certfile is '.*pipe': it is not a regular file"),
        ({"keyfile": "pipe"}, r"tls\.keyfile is '.*pipe': it is not a regular file"),
        ({"client_ca": "pipe"}, r"tls\.client_ca is '.*pipe': it is not a regular file"),
        ({"certfile": "cert.pem/x"}, r"tls\.certfile is '.*cert\.pem/x': it does not exist"),
        ({"certfile": "x\0"}, "it does not exist"),
        ({"certfile": "x" * 300}, r"tls\.certfile is .*: it cannot be read: File name too long"),
        ({"client_ca": "x" * 300}, r"tls\.client_ca is .*: it cannot be read: File name too long"),
        (
            {"certfile": "junk.pem", "keyfile": None},
            r"tls\.certfile is '.*junk\.pem': it holds no certificate in PEM form",
        ),
        (
            {"keyfile": None},
            "tls.keyfile is None: .*cert.pem holds the certificate only. Give the file of the private key",
        ),
        ({"keyfile": "missing.pem"}, r"tls\.keyfile is '.*missing\.pem': it does not exist"),
        ({"keyfile": "junk.pem"}, r"tls\.keyfile is .*junk\.pem': it holds no private key in PEM form"),
        ({"certfile": "key.pem"}, r"tls\.certfile is .*key\.pem': it holds no certificate in PEM form"),
        ({"keyfile": "other.pem"}, "does not belong to the certificate"),
        ({"client_ca": "missing.pem"}, r"tls\.client_ca is '.*missing\.pem': it does not exist"),
        ({"client_ca": "junk.pem"}, "holds no certificate"),
    ],
)
def test_a_bad_file_is_named(files: Path, changes: dict[str, Any], words: str) -> None:
    names = {"certfile": "cert.pem", "keyfile": "key.pem", **changes}
    given: dict[str, Any] = {name: None if file is None else files / file for name, file in names.items()}
    with pytest.raises(InvalidOption, match=words):
        TlsOptions(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minimum_version": "1.4"}, 'minimum_version is \'1.4\': it takes "1.0", "1.1", "1.2" or "1.3".$'),
        ({"minimum_version": None}, "minimum_version is None"),
        ({"minimum_version": "SSLv3"}, "minimum_version is 'SSLv3'"),
        ({"maximum_version": "1.1"}, "is below the minimum_version 1.2"),
        ({"alpn": ("",)}, "1 to 255 ASCII characters"),
        ({"alpn": ("h" * 256,)}, "1 to 255 ASCII characters"),
        ({"alpn": "h2"}, "it takes names of 1 to 255 ASCII characters, such as"),
        ({"ciphers": "NO-SUCH-CIPHER"}, "has no such cipher"),
        ({"verify": "required"}, "needs client_ca"),
        ({"verify": "maybe"}, 'it takes "none", "optional" or "required", or None'),
        ({"verify": "none", "client_ca": "ca.pem"}, "tls.client_ca is .*: it does nothing"),
        ({"sni": {"a.*.org": None}}, "is not a server name such as"),
        ({"sni": {"example.org": "cert.pem"}}, "takes a TlsCertificate"),
        ({"sni": {"example.org": {"keyfile": "key.pem"}}}, "it needs certfile"),
        ({"sni": {"example.org": {"certfile": "cert.pem", "key": "x"}}}, 'it does not have "key"'),
        ({"certfile": 7}, "takes the path of a PEM file"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    files: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(InvalidOption, match=words):
        TlsOptions(**{"certfile": "cert.pem", "keyfile": "key.pem", **changes})


def test_a_bad_certificate_for_a_server_name_is_found_too(files: Path) -> None:
    with pytest.raises(InvalidOption, match="does not belong"):
        TlsOptions(
            certfile=files / "cert.pem",
            keyfile=files / "key.pem",
            sni={"example.org": TlsCertificate(certfile=files / "cert.pem", keyfile=files / "other.pem")},
        )


@pytest.mark.parametrize(
    ("password", "words"),
    [
        (None, "tls.password is None: .* is encrypted. Give its password"),
        ("wrong", "tls.password: it does not open the private key"),
        ("right", None),
    ],
)
def test_an_encrypted_key_needs_its_password_and_asks_nobody(
    files: Path, require_tool: Any, password: str | None, words: str | None
) -> None:
    openssl = require_tool("openssl")
    encrypted = files / "encrypted.pem"
    subprocess.run(
        [openssl, "pkey", "-in", files / "key.pem", "-aes256", "-passout", "pass:right", "-out", encrypted],
        check=True,
        timeout=PATIENCE_S,
    )
    if words is None:
        options = TlsOptions(certfile=files / "cert.pem", keyfile=encrypted, password=password)
        assert "right" not in repr(options)
    else:
        with pytest.raises(InvalidOption, match=words):
            TlsOptions(certfile=files / "cert.pem", keyfile=encrypted, password=password)


def test_old_versions_are_an_explicit_choice(files: Path) -> None:
    options = TlsOptions(certfile=files / "cert.pem", keyfile=files / "key.pem", minimum_version="1.0")
    assert options.build_context().minimum_version is ssl.TLSVersion.TLSv1

"""Options of DTLS: what is wrong with them is said before anything opens, and secrets are never shown."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest

from esockd_core import InvalidOption
from esockd_core._options import dtls_context
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.psk import key_finder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_certificate_with_its_key_is_enough(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem")
    assert options.context is options.context
    assert options.build_context() is not options.context


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certfile": "missing.pem"}, r"dtls\.certfile is '.*missing\.pem': it does not exist"),
        ({"keyfile": "ca.pem"}, r"dtls\.keyfile is '.*ca\.pem': it holds no private key"),
        ({"keyfile": "other.example.org.pem"}, "does not belong to the certificate"),
        ({"client_ca": "missing.pem"}, r"it holds no certificate in PEM form|does not exist"),
    ],
)
def test_a_bad_file_is_named(certificates: Path, changes: dict[str, str], words: str) -> None:
    names = {"certfile": "localhost.pem", **changes}
    given: dict[str, Any] = {name: certificates / file for name, file in names.items()}
    with pytest.raises(InvalidOption, match=words):
        DtlsOptions(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certfile": None}, "^dtls: it takes a certfile or psk. Give at least one of them.$"),
        (
            {"certfile": None, "psk": {"a": b"k"}, "client_ca": "ca.pem"},
            "^dtls.client_ca: it does nothing without certfile",
        ),
        ({"verify": "required"}, "dtls.verify is 'required': it needs client_ca"),
        ({"verify": "none", "client_ca": "ca.pem"}, "dtls.client_ca is .*: it does nothing"),
        ({"ciphers": "NO-SUCH"}, "^dtls.ciphers is 'NO-SUCH': this OpenSSL has no such cipher. See: openssl ciphers$"),
        ({"sni": {"a b": "x"}}, "is not a server name"),
        ({"sni": {"mail.example.org": "x"}}, 'dtls.sni."mail.example.org".* it takes a TlsCertificate'),
        ({"sni": 7}, "^dtls.sni is 7: it takes a mapping"),
    ],
)
def test_a_bad_value_is_explained(certificates: Path, changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"certfile": certificates / "localhost.pem", **changes}
    if "client_ca" in given:
        given["client_ca"] = certificates / given["client_ca"]
    with pytest.raises(InvalidOption, match=words):
        DtlsOptions(**given)


def test_options_are_copied_to_other_processes_without_their_context(certificates: Path) -> None:
    options = DtlsOptions(
        certfile=certificates / "localhost.pem",
        sni={"other.example.org": TlsCertificate(certfile=certificates / "other.example.org.pem")},
        psk={"sensor 7": b"secret"},
    )
    for copied in (copy.copy(options), pickle.loads(pickle.dumps(options))):
        assert copied == options
        assert copied.context is not options.context
    assert "secret" not in repr(options)


def test_without_the_extra_the_error_says_what_to_install(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "esockd_core._options.dtls_context", None)
    with pytest.raises(InvalidOption, match=r"it needs pyOpenSSL.* Install it: pip install 'esockd-core\[dtls\]'"):
        DtlsOptions(certfile=certificates / "localhost.pem")


def test_keys_need_an_openssl_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls_context, "has_psk", lambda: False)
    with pytest.raises(InvalidOption, match=r"dtls.psk: this build of OpenSSL knows no pre-shared keys. Use cert"):
        DtlsOptions(psk={"sensor 7": b"secret"})


def test_a_file_of_keys_is_read_as_mosquitto_and_stunnel_do(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the sensors\n\nsensor 7:00ff10\nurn:dev:8:ABCD\n", encoding="utf-8")
    find = key_finder("dtls.psk", file)
    assert [find(name) for name in ("sensor 7", "urn:dev:8", "sensor 8")] == [b"\0\xff\x10", b"\xab\xcd", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sensor:xyz\n", "line 1 is not an identity, a colon and a key in hexadecimal"),
        ("\nsensor\n", "line 2 is not"),
        ("a:00\na:01\n", "line 2: 'a' has two keys"),
        (":00\n", "line 1: an identity takes a text of 1 to 128 bytes"),
        (f"{'a' * 129}:00\n", "line 1: an identity takes a text of 1 to 128 bytes"),
        ("a:\n", "line 1: the key of 'a' takes 1 to 256 bytes"),
        (f"a:{'00' * 257}\n", "takes 1 to 256 bytes"),
        ("# none\n", "it holds no keys"),
    ],
)
def test_a_wrong_file_of_keys_is_explained_without_the_keys(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(InvalidOption, match=words) as caught:
        key_finder("dtls.psk", str(file))
    assert "xyz" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_of_keys_has_to_be_there_and_to_be_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="it does not exist"):
        key_finder("dtls.psk", tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidOption, match="it is not text in UTF-8"):
        key_finder("dtls.psk", tmp_path / "binary")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidOption, match="it is not a regular file"):
        key_finder("dtls.psk", tmp_path / "pipe")
    with pytest.raises(InvalidOption, match="it cannot be read: File name too long"):
        key_finder("dtls.psk", tmp_path / ("x" * 300))


@pytest.mark.parametrize("keys", [7, ["a"], {"a": "text"}, {"": b"k"}, {"a\0b": b"k"}, {7: b"k"}, {"a": b""}])
def test_wrong_keys_are_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^dtls\.psk: "):
        DtlsOptions(psk=keys)

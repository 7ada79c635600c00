"""The checks of `esockd doctor` on the options of listeners: certificates, access rules, proxies, TLS and timeouts."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.cli.doctor.machines import listener, see

from esockd_cli.doctor.certificates import NotACertificate, read_validities
from esockd_cli.doctor.findings import Finding, NotSeen

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_cli.doctor.machine import Machine


def certificate(folder: Path, days: float, begun: float = 400) -> Path:
    """A file with a certificate that expires in so many days, and begun so many ago."""
    now = dt.datetime.now(dt.UTC)
    issued = trustme.CA().issue_cert(
        "edge.example",
        not_before=now - dt.timedelta(days=begun),
        not_after=now + dt.timedelta(days=days),
    )
    file = folder / f"{days}.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(file)
    return file


@pytest.mark.parametrize(
    ("days", "begun", "level", "seen"),
    [
        (29.5, 400, "warning", "expires in 29 days"),
        (-2, 400, "error", "has expired on"),
        (90, -2, "error", "is not valid before"),
        (31, 400, None, ""),
        (12_000, 400, None, ""),  # beyond 2049 a certificate has another form of time
    ],
)
def test_certificates_are_found_before_they_expire(
    well: Machine, tmp_path: Path, days: float, begun: float, level: str | None, seen: str
) -> None:
    file = certificate(tmp_path, days, begun)
    by_name = {"other.example": {"certfile": file.name, "keyfile": None}}
    for options in ({"tls__certfile": str(file)}, {"dtls__certfile": file.name}, {"tls__sni": by_name}):
        found = see("certificates", well, listener("tls://127.0.0.1:5000", folder=tmp_path, **options))
        assert [each.level for each in found if isinstance(each, Finding)] == ([level] if level else [])
        for each in found:
            assert isinstance(each, Finding)
            assert seen in each.seen
            assert each.mend == "renew it, then: kill -HUP 812"


def test_a_certificate_that_cannot_be_read_is_told(well: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for file, reason in (("gone.pem", "no such file"), ("empty.pem", "no certificate in PEM form")):
        (missed,) = see("certificates", well, listener(tls__certfile=str(tmp_path / file)))
        assert isinstance(missed, NotSeen)
        assert reason in missed.reason


def test_what_is_no_certificate_is_refused_whatever_it_is(tmp_path: Path) -> None:
    good = certificate(tmp_path, 90).read_text()
    assert len(read_validities(good)) == 1
    body = "".join(good.partition("-----BEGIN CERTIFICATE-----")[2].split())
    for text in ("AAAA", "MA==", "MIIB", body[:80], f"{body[:200]}AAAA", "////" * 20):
        with pytest.raises(NotACertificate):
            read_validities(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")


def test_rules_that_can_never_decide_are_found(well: Machine) -> None:
    rules = ("deny 10.0.0.0/8", "allow 10.1.0.0/16", "deny all")
    (found,) = see("rules", well, listener(access_rules=rules))
    assert isinstance(found, Finding)
    assert (found.level, found.mend) == ("warning", "remove allow 10.1.0.0/16")
    assert '"deny 10.0.0.0/8"' in found.seen
    assert see("rules", well, listener(access_rules=rules[::2])) == []


def test_many_rules_that_can_never_decide_are_a_few_findings(well: Machine) -> None:
    rules = ("deny all", *(f"allow 10.{number}.0.0/16" for number in range(9)))
    found = see("rules", well, listener(access_rules=rules))
    assert len(found) == 5
    assert isinstance(found[-1], Finding)
    assert "(and 4 more rules)" in found[-1].seen


def test_rules_that_only_allow_are_an_error(well: Machine) -> None:
    (found,) = see("rules", well, listener(access_rules=("allow 10.0.0.0/8",)))
    assert isinstance(found, Finding)
    assert (found.level, found.mend) == ("error", "set access_rules=allow 10.0.0.0/8,deny all")


@pytest.mark.parametrize(
    ("address", "trusted", "count"),
    [("*:5000", None, 1), ("192.0.2.1:5000", None, 1), ("127.0.0.1:5000", None, 0), ("*:5000", ("192.0.2.7",), 0)],
)
def test_a_public_listener_must_not_believe_every_proxy(well: Machine, address: str, trusted: Any, count: int) -> None:
    each = listener(address, proxy_protocol__policy="require", proxy_protocol__trusted=trusted)
    found = see("proxy-trust", well, each)
    assert [one.level for one in found if isinstance(one, Finding)] == ["error"] * count


def test_old_versions_of_tls_are_found(well: Machine) -> None:
    (found,) = see("tls-version", well, listener(tls__minimum_version="1.1"))
    assert isinstance(found, Finding)
    assert found.mend == "set tls.minimum_version=1.2"
    assert see("tls-version", well, listener(tls__minimum_version="1.3")) == []


def test_something_must_end_the_connections_of_clients_that_vanished(well: Machine) -> None:
    assert len(see("keepalive", well, listener(tcp__keepalive=False))) == 1
    assert see("keepalive", well, listener(tcp__keepalive=False, idle_timeout=60.0)) == []
    assert see("keepalive", well, listener("udp://127.0.0.1:5000", tcp__keepalive=False)) == []

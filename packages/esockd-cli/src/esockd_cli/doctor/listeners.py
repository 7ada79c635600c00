"""Checks of the options of listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cidr import Flaw, lint
from esockd_cli._listeners import is_public
from esockd_cli.doctor.certificates import NotACertificate, read_validities
from esockd_cli.doctor.findings import Finding, NotSeen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from esockd_cli.doctor.certificates import Validity
    from esockd_cli.doctor.findings import Level
    from esockd_cli.doctor.patient import Patient, Subject

DAY_S: Final = 86_400
SOON_S: Final = 30 * DAY_S
MOST_RULES: Final = 5  # findings of one listener


def look_at_certificates(patient: Patient) -> Iterator[Finding | NotSeen]:
    """The dates of every certificate in the files of listeners, chains included."""
    for listener in patient.listeners:
        for file in certificate_files(listener):
            try:
                validities = read_validities(file.read_text(encoding="ascii", errors="replace"))
            except OSError as error:
                yield NotSeen(listener.name, f"{file}: {(error.strerror or str(error)).lower()}")
            except NotACertificate as error:
                yield NotSeen(listener.name, f"{file}: {error}")
            else:
                for number, validity in enumerate(validities, 1):
                    which = f"{file}" if len(validities) == 1 else f"certificate {number} of {file}"
                    yield from judge(listener, which, validity, patient.now)


def judge(listener: Subject, which: str, validity: Validity, now: float) -> Iterator[Finding]:
    """What the dates of one certificate say."""
    left = validity.until - now
    level: Level = "error"
    if now < validity.since:
        seen = f"{which} is not valid before {validity.since_text}"
    elif left <= 0:
        seen = f"{which} has expired on {validity.until_text}"
    elif left < SOON_S:
        level, seen = "warning", f"{which} expires in {int(left // DAY_S)} days, on {validity.until_text}"
    else:
        return
    yield Finding(
        level,
        listener.name,
        seen,
        "Clients that look at the certificate refuse the connection.",
        f"renew it, then: {reading_again(listener)}",
    )


def reading_again(listener: Subject) -> str:
    """What makes a process read certificates again."""
    process = listener.process
    return "esockd reload" if process.pid is None else f"kill -HUP {process.pid}"


def certificate_files(listener: Subject) -> list[Path]:
    """The files of a listener that have certificates which clients see."""
    named = [listener.option(f"{group}.certfile") for group in ("tls", "dtls")]
    others = [each for group in ("tls", "dtls") for each in (listener.option(f"{group}.sni") or {}).values()]
    named += [each["certfile"] if isinstance(each, dict) else each.certfile for each in others]
    return list(dict.fromkeys(listener.folder / str(each) for each in named if each is not None))


def look_at_rules(patient: Patient) -> Iterator[Finding]:
    """Access rules that decide nothing, or less than whoever wrote them will have meant."""
    for listener in patient.listeners:
        rules = [str(rule) for rule in listener.option("access_rules", ())]
        shadowed = [each for each in lint("\n".join(rules)) if each.flaw is Flaw.SHADOWED]
        for each in shadowed[:MOST_RULES]:
            others = ", ".join(f'"{other.rule}"' for other in each.others[:3])
            more = len(shadowed) - MOST_RULES
            yield Finding(
                "warning",
                listener.name,
                f'the rule "{each.text}" can never decide: {others} before it match every client that it matches'
                + (f" (and {more} more rules)" if more > 0 and each is shadowed[MOST_RULES - 1] else ""),
                "Whoever wrote the rule meant it to do something.",
                listener.remove_rule(each.text),
            )
        if rules and all(rule.startswith("allow ") for rule in rules) and "allow all" not in rules:
            yield Finding(
                "error",
                listener.name,
                "its access rules only allow, and whoever matches none of them is let in",
                "Such rules keep nobody out.",
                listener.change("access_rules", ",".join([*rules, "deny all"])),
            )


def look_at_proxy_trust(patient: Patient) -> Iterator[Finding]:
    """PROXY headers that are believed whoever sends them."""
    for listener in patient.listeners:
        if listener.option("proxy_protocol.policy") and listener.option("proxy_protocol.trusted") is None:
            if not is_public(listener.address):
                continue
            yield Finding(
                "error",
                listener.name,
                f"it believes the PROXY header of whoever can reach {listener.address}",
                "Anybody can claim to be any client: access rules, limits per source and logs then mean nothing.",
                listener.change("proxy_protocol.trusted", "192.0.2.10") + " with the addresses of your proxies",
            )


def look_at_tls_versions(patient: Patient) -> Iterator[Finding]:
    """Versions of TLS that are not safe any more."""
    for listener in patient.listeners:
        if (oldest := listener.option("tls.minimum_version", "1.2")) < "1.2":
            yield Finding(
                "warning",
                listener.name,
                f"it speaks TLS {oldest}",
                "TLS 1.0 and 1.1 can be broken, and must not be used (RFC 8996).",
                listener.change("tls.minimum_version", "1.2"),
            )


def look_at_keepalive(patient: Patient) -> Iterator[Finding]:
    """Connections that would stay for ever when their peers vanish."""
    for listener in patient.listeners:
        if listener.address.is_datagram or listener.address.kind == "unix":
            continue
        timeouts = [listener.option(name) for name in ("idle_timeout", "receive_timeout", "max_age")]
        if listener.option("tcp.keepalive") is False and timeouts == [None, None, None]:
            yield Finding(
                "warning",
                listener.name,
                "keepalive is off, and there is no idle_timeout, receive_timeout or max_age",
                "The connection of a client that vanished without a word keeps its place for ever.",
                listener.change("tcp.keepalive", "on"),
            )

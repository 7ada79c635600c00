"""Addresses, forwarders and options of listeners, checked together before anything is opened."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._bad_options import bad_option
from esockd_cli._errors import UsageError, bad_value
from esockd_cli._flags import group_of
from esockd_cli._passwords import read_password
from esockd_core import (
    FOR_STREAMS,
    OPTIONS,
    DtlsOptions,
    InvalidAddress,
    InvalidOption,
    ListenerOptions,
    TcpOptions,
    TlsOptions,
    UdpOptions,
    UnixOptions,
    UpstreamTlsOptions,
    merge_options,
    parse_address,
)
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from esockd_core import Address

logger = logging.getLogger("esockd_cli")

ANSWERING: Final = frozenset({"echo", "chargen", "daytime", "static", "forward"})  # handlers that answer whoever asks
UPSTREAM_HINT: Final = (
    'Write "forward:HOST:PORT", "forward:tls://HOST:PORT", "forward:unix:/path" or "forward:udp://HOST:PORT"; '
    "several with commas."
)


@dataclass(frozen=True, slots=True)
class Words:
    """How options are called where they were given: on a command line, or in a file.

    Attributes:
        option: Of an option's name, such as "tls.certfile".
        rule: Of an access rule.
        allowing: What lets in some clients, and keeps out all others.
        certificate_hint: What to do where an address needs a certificate.
        dtls_hint: What to do where one needs a certificate or pre-shared keys.
    """

    option: Callable[[str], str]
    rule: Callable[[str], str]
    allowing: str
    certificate_hint: str
    dtls_hint: str


FLAGS: Final = Words(
    option=lambda name: OPTIONS[name].flag or f"--{OPTIONS[name].group}-option",
    rule=lambda rule: f"--{rule}",
    allowing="--allow NETWORK",
    certificate_hint="Give --cert FILE, and --key FILE for its key.",
    dtls_hint="Give --cert FILE, and --key FILE for its key, or --psk-file FILE.",
)


@dataclass(frozen=True, slots=True)
class Misuse:
    """An option that would do nothing, or one that is missing.

    Attributes:
        name: The name of the option.
        message: What is wrong, in one sentence.
        hint: What to do about it.
    """

    name: str
    message: str
    hint: str | None = None


def read_addresses(texts: Sequence[str]) -> list[Address]:
    """Read the addresses to listen on.

    Raises:
        UsageError: One is not valid, or given twice.
    """
    try:
        addresses = [parse_address(text) for text in texts]
    except InvalidAddress as error:
        raise bad_value(error, f'bad address "{error.value}"', code="bad_address") from error
    for position, address in enumerate(addresses):
        if address in addresses[:position]:
            raise UsageError(f"{address} is given twice.", code="bad_address")
    return addresses


def read_forwarder(handler: str, values: Mapping[str, Any]) -> ForwardHandler | None:
    """Read `forward:UPSTREAM,...` and the options for it; None when the handler is another one.

    Raises:
        UsageError: An upstream is not valid, or an option is for forwarders and the handler is not one.
    """
    for name in forwarding_options(handler, values):
        raise UsageError(f'{OPTIONS[name].flag} is for the handler forward:HOST:PORT, and not for "{handler}".')
    try:
        return make_forwarder(handler, values)
    except InvalidOption as error:
        raise bad_option(error, "forward") from error


def forwarding_options(handler: str, values: Mapping[str, Any]) -> list[str]:
    """The options of forwarders that were given for another handler."""
    return [] if is_forwarder(handler) else [name for name in values if name.startswith("forward.")]


def is_forwarder(handler: str) -> bool:
    """Whether a handler is `forward:UPSTREAM,...`."""
    return handler.partition(":")[0] == "forward"


def make_forwarder(handler: str, values: Mapping[str, Any]) -> ForwardHandler | None:
    """Make the handler that `forward:UPSTREAM,...` is; None when it is another one.

    Raises:
        UsageError: An upstream is not valid.
        InvalidOption: An option is not valid; it is named without its group, "forward".
    """
    if not is_forwarder(handler):
        return None
    upstreams = handler.partition(":")[2]
    if not upstreams:
        raise UsageError("forward: the upstream is missing.", code="bad_upstream", hint=UPSTREAM_HINT)
    try:
        options = group_of(values, "forward")
        if tls := group_of(values, "forward.tls"):
            options["tls"] = UpstreamTlsOptions(**tls)
        return ForwardHandler(upstreams.split(","), **options)
    except InvalidOption as error:
        if error.option != "upstreams":
            raise
        subject = f'bad upstream "{error.value}"'
        raise bad_value(error, subject, code="bad_upstream", hint=UPSTREAM_HINT) from error


def read_options(
    addresses: Sequence[Address], values: Mapping[str, Any], *, rules: Sequence[str], key_password_file: str | None
) -> list[ListenerOptions]:
    """Build the options that a command line gives, see `build_options`, and warn of doubtful ones.

    Raises:
        UsageError: Values do not go together, or do nothing for these addresses.
    """
    password_from = None if key_password_file is None else "--key-password-file"
    for misuse in find_misuse(addresses, values, FLAGS, password_from=password_from):
        raise UsageError(misuse.message, hint=misuse.hint)
    has_tls = any(address.is_encrypted for address in addresses)
    try:
        password = read_password(key_password_file) if has_tls else None
        options = build_options(addresses, values, rules=rules, password=password)
    except InvalidOption as error:
        raise bad_option(error) from error
    for doubt in find_doubts(addresses, values, options[0], FLAGS):
        logger.warning("%s", doubt)
    return options


def build_options(
    addresses: Sequence[Address], values: Mapping[str, Any], *, rules: Sequence[str], password: bytes | None
) -> list[ListenerOptions]:
    """The options of the listener on each address.

    Args:
        addresses: Where they listen.
        values: The values that were given, by the names of their options; there is no `Misuse` in them.
        rules: The access rules.
        password: Of a private key.

    Raises:
        InvalidOption: If values do not go together.
    """
    options = merge_options(None, _merged(values) | {"access_rules": rules})
    unix = UnixOptions(**group_of(values, "unix"))
    udp = UdpOptions(**group_of(values, "udp"))
    transports = {address.transport for address in addresses}
    tls = TlsOptions(**group_of(values, "tls"), password=password) if "tls" in transports else None
    dtls = None
    if "dtls" in transports:
        given = _of_dtls(values)
        dtls = DtlsOptions(**given, password=password if "certfile" in given else None)
    return [
        replace(
            _for_datagrams(options) if address.is_datagram else options,
            unix=unix if address.kind == "unix" else UnixOptions(),
            udp=udp if address.is_datagram else UdpOptions(),
            tls=tls if address.transport == "tls" else None,
            dtls=dtls if address.transport == "dtls" else None,
        )
        for address in addresses
    ]


def _for_datagrams(options: ListenerOptions) -> ListenerOptions:
    """The options of a listener for datagrams beside others for streams, whose own options it does not take."""
    of_streams: dict[str, Any] = {name: OPTIONS[name].default for name in FOR_STREAMS}
    return replace(options, tcp=TcpOptions(), **of_streams)


def refuse_amplification(addresses: Sequence[Address], options: Sequence[ListenerOptions], handler: str) -> None:
    """Refuse to answer everybody over UDP; see `find_amplification`.

    Raises:
        UsageError: An address that other machines may reach has no access rules that keep most of them out.
    """
    for misuse in find_amplification(addresses, options, handler, FLAGS):
        raise UsageError(misuse.message, code="amplification", hint=misuse.hint)


def find_amplification(
    addresses: Sequence[Address], options: Sequence[ListenerOptions], handler: str, words: Words
) -> Iterator[Misuse]:
    """Find what answers everybody over UDP: with a forged source, each answer goes to a victim."""
    for address, each in zip(addresses, options, strict=True):
        # A client of DTLS has proven its address before it is answered at length.
        if not (address.transport == "udp" and is_public(address)) or _keeps_others_out(each):
            continue
        check = each.udp.health_check
        if handler.partition(":")[0] in ANSWERING:
            what = f"the handler {handler.partition(':')[0]} answers whoever asks on {address}"
        elif check is not None and len(check[1]) > len(check[0]):
            what = f"{words.option('udp.health_check')} answers with more than it was asked on {address}"
        else:
            continue
        message = f"{what}, and a UDP source can be forged: it would send to a victim."
        yield Misuse("listen", message, f"Name who may ask with {words.allowing}, or listen on loopback only.")


def _keeps_others_out(options: ListenerOptions) -> bool:
    access = options.access_list()
    return access.default == "deny" or any(str(rule) == "deny all" for rule in access.rules)


def _merged(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a listener that hold for every address, nested as the library takes them."""
    merged = group_of(values, "")
    if proxy := group_of(values, "proxy_protocol"):
        merged["proxy_protocol"] = proxy
    return merged | {"tcp": group_of(values, "tcp")}


def _of_dtls(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of DTLS, which shares those for certificates with TLS."""
    shared = {name: value for name, value in group_of(values, "tls").items() if f"dtls.{name}" in OPTIONS}
    return shared | group_of(values, "dtls")


def find_misuse(
    addresses: Sequence[Address], values: Mapping[str, Any], words: Words, *, password_from: str | None
) -> Iterator[Misuse]:
    """Find what would do nothing, and a certificate that is missing.

    Args:
        addresses: Where the listeners listen.
        values: The values that were given, by the names of their options.
        words: How options are called.
        password_from: What says where the password of a private key is, as it was given; None if nothing does.
    """
    has_proxy = bool(values.get("proxy_protocol"))
    given = [(words.option(name), name) for name in values]
    if password_from is not None:
        given.append((password_from, "tls.password"))
    for called, name in given:
        yield from _misuse_of_transport(addresses, called, name)
        if name.startswith("proxy_protocol.") and not has_proxy:
            proxy = words.option("proxy_protocol")
            yield Misuse(name, f"{called} does nothing without {proxy}.", f"Give {proxy} too.")
        if name == "max_handshaking" and not has_proxy and not any(each.is_encrypted for each in addresses):
            proxy = words.option("proxy_protocol")
            yield Misuse(name, f"{called} does nothing without a tls:// or dtls:// address or {proxy}.")
    by_transport = {address.transport: address for address in addresses}
    if "tls" in by_transport and "tls.certfile" not in values:
        yield Misuse("tls.certfile", f"{by_transport['tls']} needs a certificate.", words.certificate_hint)
    if "dtls" in by_transport and {"certfile", "psk"}.isdisjoint(_of_dtls(values)):
        message = f"{by_transport['dtls']} needs a certificate or pre-shared keys."
        yield Misuse("tls.certfile", message, words.dtls_hint)


def _misuse_of_transport(addresses: Sequence[Address], called: str, name: str) -> Iterator[Misuse]:
    """What an option is for, where no address is that."""
    transports = {address.transport for address in addresses}
    if (name.startswith("tls.") or name == "handshake_timeout") and transports.isdisjoint(("tls", "dtls")):
        stream = next((address for address in addresses if not address.is_datagram), None)
        hint = None if stream is None else f'Did you mean "{stream.encrypted()}"?'
        yield Misuse(name, f"{called} is for tls://HOST:PORT, and no address is one.", hint)
    elif name.startswith("tls.") and f"d{name}" not in OPTIONS and "tls" not in transports:
        yield Misuse(name, f"{called} is for tls://HOST:PORT, and no address is one: DTLS has one version.")
    if name.startswith("dtls.") and "dtls" not in transports:
        yield Misuse(name, f"{called} is for dtls://HOST:PORT, and no address is one.")
    if name.startswith("udp.") and not any(address.is_datagram for address in addresses):
        yield Misuse(name, f"{called} is for udp://HOST:PORT, and no address is one.")
    if (name.startswith("tcp.") or name in FOR_STREAMS) and all(address.is_datagram for address in addresses):
        why = f": {FOR_STREAMS[name]}" if name in FOR_STREAMS else ""
        yield Misuse(name, f"{called} is for streams, and every address is for datagrams{why}.")
    if name.startswith("unix.") and not any(address.kind == "unix" for address in addresses):
        yield Misuse(name, f"{called} is for unix:/path, and no address is one.")


def find_doubts(
    addresses: Sequence[Address], values: Mapping[str, Any], options: ListenerOptions, words: Words
) -> Iterator[str]:
    """Find what is allowed, and mostly a mistake."""
    for rule in options.access_list().shadowed():
        yield f"{words.rule(str(rule))} can never decide: rules before it match every client that it matches"
    if options.proxy is not None and options.proxy.trusted is None:
        trust = words.option("proxy_protocol.trusted")
        for address in filter(is_public, addresses):
            yield f"whoever can reach {address} can claim to be any client: name your proxies with {trust}"
    if (oldest := values.get("tls.minimum_version", "1.2")) < "1.2":
        yield f"{words.option('tls.minimum_version')} {oldest}: TLS 1.0 and 1.1 are insecure (RFC 8996)"


def is_public(address: Address) -> bool:
    """Whether other machines may reach an address."""
    if address.kind != "host":
        return address.kind == "everywhere"
    try:
        return not ipaddress.ip_address(str(address.host)).is_loopback
    except ValueError:
        return address.host != "localhost"

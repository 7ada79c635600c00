"""`esockd proxy`: PROXY protocol headers, written and read at the prompt."""

from __future__ import annotations

from typing import Annotated

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

EXAMPLES = {
    "proxy encode": "192.0.2.1:56324 198.51.100.7:443 --tlv authority=example.org",
    "proxy decode": "0d0a0d0a000d0a515549540a21110000",
}


@speaks
def proxy_encode_command(
    output: Output,
    *,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="The client: 192.0.2.1:56324, [2001:db8::1]:56324 or unix:/path."),
    ] = None,
    destination: Annotated[
        str | None, typer.Argument(metavar="DESTINATION", help="What it connected to; both or neither.")
    ] = None,
    version: Annotated[int, typer.Option("--version", min=1, max=2, help="Of the protocol: 1 is text.")] = 2,
    local: Annotated[bool, typer.Option("--local", help="From the proxy itself, such as a health check.")] = False,
    datagram: Annotated[bool, typer.Option("--datagram", help="For UDP.")] = False,
    tlv: Annotated[
        list[str] | None,
        typer.Option(
            "--tlv",
            metavar="TYPE=VALUE",
            help="A value of version 2: alpn=h2, authority=example.org, 0xe4=hex:c0ffee. Give it again for more.",
        ),
    ] = None,
    checksum: Annotated[bool, typer.Option("--checksum", help="Add a CRC32C.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write bytes instead of hex, for a pipe.")] = False,
) -> int:
    """Write a PROXY protocol header, as hex or as bytes."""
    import sys  # noqa: PLC0415

    from esockd_cli._errors import ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._headers import describe_header, read_endpoint, read_tlv  # noqa: PLC0415
    from esockd_proxyproto import Command, ProxyHeader, ProxyProtocolError, Transport, encode  # noqa: PLC0415

    if raw and sys.stdout.isatty():
        raise UsageError("--raw is for a pipe, and stdout is a terminal.", hint="Such as: esockd proxy encode ... | nc")
    ends = [None if text is None else read_endpoint(text) for text in (source, destination)]
    try:
        header = ProxyHeader(
            version=version,
            command=Command.LOCAL if local else Command.PROXY,
            source=ends[0],
            destination=ends[1],
            transport=Transport.DGRAM if datagram else None,
            tlvs=[read_tlv(text) for text in tlv or ()],
        )
        data = encode(header, checksum=checksum)
    except ProxyProtocolError as error:
        raise UsageError(f"{str(error).removesuffix('.')}.", code="cannot_encode") from error
    if raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        output.data(data.hex(), hex=data.hex(), **describe_header(header, len(data), 0))
    return ExitCode.OK


@speaks
def proxy_decode_command(
    output: Output,
    *,
    header: Annotated[
        str,
        typer.Argument(
            metavar="HEX",
            help="The bytes in hex, or the text of version 1; - is stdin: bytes, hex, or what xxd, hexdump -C or "
            "tcpdump -X print.",
        ),
    ] = "-",
) -> int:
    """Read a PROXY protocol header, of either version.

    The status is 1 where it is not one, or not all of one.
    """
    import sys  # noqa: PLC0415

    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import CommandError, ExitCode  # noqa: PLC0415
    from esockd_cli._headers import describe_header, read_pasted  # noqa: PLC0415
    from esockd_proxyproto import IncompleteHeader, InvalidHeader, decode  # noqa: PLC0415

    data = read_pasted(sys.stdin.buffer.read() if header == "-" else header.encode(errors="surrogateescape"))
    try:
        found, length = decode(data)
    except IncompleteHeader as error:
        raise CommandError(
            f"the header is not complete: {len(data)} bytes are here, and at least {error.missing} more are needed.",
            code="incomplete",
            status=ExitCode.FAILED,
        ) from error
    except InvalidHeader as error:
        raise CommandError(
            f"byte {error.offset}: {error.reason} ({error.section}).", code="invalid_header", status=ExitCode.FAILED
        ) from error
    facts = describe_header(found, length, len(data) - length)
    rows = [f"{name:13}{clean(str(value))}" for name, value in facts.items() if name != "tlvs" and value is not None]
    tlvs = facts["tlvs"]
    for each in tlvs if isinstance(tlvs, list) else ():
        text = "" if each["text"] is None else f'  "{each["text"]}"'
        rows.append(clean(f"{'tlv ' + each['name']:13}{each['hex']}{text}"))
    output.data("\n".join(rows), **facts)
    return ExitCode.OK

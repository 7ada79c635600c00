"""`esockd cidr` and `esockd proxy`: the small packages at the prompt."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.running import ESOCKD, LIMIT_S, Answer

from esockd_cli._headers import read_pasted
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from pathlib import Path

HEADER = encode(ProxyHeader(source=Endpoint("192.0.2.1", 56324), destination=Endpoint("198.51.100.7", 443)))


def run(*arguments: str, given: bytes = b"") -> Answer:
    done = subprocess.run([ESOCKD, *arguments], input=given, capture_output=True, timeout=LIMIT_S, check=False)
    return Answer(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


def test_cidr_explain_says_what_networks_mean() -> None:
    assert run("cidr", "explain", "10.1.2.3/8", "2001:db8::/126") == (
        0,
        (
            "network   10.0.0.0/8\n"
            "version   IPv4\n"
            "first     10.0.0.0\n"
            "last      10.255.255.255\n"
            "addresses 16777216\n"
            "whose     a private network's, or reserved for another use\n"
            "note      bits to the right of the prefix are set and do not count: 10.1.2.3/8 means 10.0.0.0/8\n"
            "\n"
            "network   2001:db8::/126\n"
            "version   IPv6\n"
            "first     2001:db8::\n"
            "last      2001:db8::3\n"
            "addresses 4\n"
            "whose     a private network's, or reserved for another use\n"
        ),
        "",
    )
    (told,) = json.loads(run("cidr", "explain", "::ffff:8.8.8.8", "--json").out)["networks"]
    assert (told["network"], told["version"], told["whose"]) == ("8.8.8.8", "IPv4", "anybody's on the Internet")
    assert run("cidr", "explain", "10.0.0.1/33") == (
        2,
        "",
        'error: bad CIDR "10.0.0.1/33": an IPv4 prefix length is 0 to 32.\n',
    )


def test_cidr_lint_tells_every_flaw_with_its_line(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("deny 10.0.0.0/8;\nallow 10.0.0.0/33;\ndeny 10.1.0.0/16;\n")
    assert run("cidr", "lint", str(rules)) == (
        1,
        (
            f"{rules}:2: allow 10.0.0.0/33: an IPv4 prefix length is 0 to 32.\n"
            f"{rules}:3: deny 10.1.0.0/16: it never decides, because line 1 matches every peer first. Delete it.\n"
        ),
        "",
    )
    told = json.loads(run("cidr", "lint", "--json", given=rules.read_bytes()).out)
    assert [(each["line"], each["flaw"]) for each in told["findings"]] == [(2, "invalid"), (3, "shadowed")]
    assert run("cidr", "lint", given=b"deny 2001:db8::/32\n") == (0, "", "stdin: nothing is wrong\n")
    assert run("cidr", "lint", f"{rules}.none") == (
        2,
        "",
        f'error: cannot read "{rules}.none": No such file or directory.\n',
    )


def test_proxy_encode_writes_hex_and_decode_reads_it() -> None:
    arguments = ("192.0.2.1:56324", "198.51.100.7:443")
    assert run("proxy", "encode", *arguments) == (0, f"{HEADER.hex()}\n", "")
    assert run("proxy", "encode", *arguments, "--raw").out.encode("latin-1") == HEADER
    assert run("proxy", "decode", HEADER.hex()) == (
        0,
        (
            "version      2\ncommand      PROXY\nfamily       INET\ntransport    STREAM\n"
            "source       192.0.2.1:56324\ndestination  198.51.100.7:443\nbytes        28\n"
        ),
        "",
    )
    told = json.loads(run("proxy", "decode", "--json", given=HEADER + b"GET /").out)
    assert (told["source"], told["bytes"], told["behind"]) == ("192.0.2.1:56324", 28, 5)


def test_proxy_speaks_ipv6_version_1_and_tlvs() -> None:
    ends = ("[2001:db8::1]:1", "[2001:db8::2]:443")
    text = run("proxy", "encode", *ends, "--version", "1", "--raw").out
    assert text == "PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n"
    assert "source       [2001:db8::1]:1\n" in run("proxy", "decode", text.rstrip()).out
    encoded = run("proxy", "encode", *ends, "--tlv", "authority=example.org", "--tlv", "0xe4=hex:c0ffee", "--checksum")
    told = json.loads(run("proxy", "decode", "--json", given=encoded.out.encode()).out)
    assert [(each["name"], each["text"]) for each in told["tlvs"]][:2] == [("authority", "example.org"), ("0xe4", None)]
    assert told["tlvs"][1]["hex"] == "c0ffee"
    assert run("proxy", "encode", "--local").out == "0d0a0d0a000d0a515549540a20000000\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("decode", HEADER[:20].hex()),
            1,
            "the header is not complete: 20 bytes are here, and at least 8 more are needed.",
        ),
        (("decode", "zz"), 2, "these are not bytes in hex. See: esockd proxy decode --help"),
        (
            ("encode", "2001:db8::1:80", "192.0.2.1:80"),
            2,
            (
                'bad address "2001:db8::1:80": it takes ADDRESS:PORT, [ADDRESS]:PORT or unix:/path. '
                "Write [2001:db8::1]:80"
            ),
        ),
        (("encode", "192.0.2.1:80"), 2, "source and destination go together: give both or neither."),
        (
            ("encode", "--tlv", "sni=x"),
            2,
            (
                "--tlv sni=x: it takes a type and a text, or hex: and bytes. Types are alpn, authority, crc32c, noop, "
                "unique_id, ssl, netns, gcp, aws, azure, or a number such as 0xe4."
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_header_is_one_line(arguments: tuple[str, ...], status: int, message: str) -> None:
    assert run("proxy", *arguments) == (status, "", f"error: {message}\n")


def test_what_is_no_header_says_at_which_byte() -> None:
    status, out, err = run("proxy", "decode", b"GET / HTTP/1.1\r\n".hex())
    assert (status, out) == (1, "")
    assert err.startswith("error: byte 0: ")


def dumps() -> list[Any]:
    data = HEADER.hex(" ").split()
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    xxd = [" ".join("".join(row[at : at + 2]) for at in range(0, len(row), 2)) for row in rows]
    return [
        pytest.param(HEADER.hex(":"), id="colons"),
        pytest.param("".join(f"\\x{byte}" for byte in data), id="escapes"),
        pytest.param(", ".join(f"0x{byte}" for byte in data), id="numbers"),
        pytest.param(HEADER.hex(" ", 4), id="groups"),
        pytest.param("".join(f"{at * 16:08x}: {row:<39}  ....QUIT.|..\n" for at, row in enumerate(xxd)), id="xxd"),
        pytest.param(
            "".join(
                f"{at * 16:08x}  {' '.join(row[:8])}  {' '.join(row[8:])}  |...QUIT.|\n" for at, row in enumerate(rows)
            )
            + "0000001c\n",
            id="hexdump",
        ),
        pytest.param(
            "12:00:00.0 IP 192.0.2.1.1 > 192.0.2.2.2: Flags [P.]\n"
            + "".join(f"\t0x{at * 16:04x}:  {row}  ..QUIT..\n" for at, row in enumerate(xxd)),
            id="tcpdump",
        ),
    ]


@pytest.mark.parametrize("pasted", dumps())
def test_decode_reads_hex_as_programs_print_it(pasted: str) -> None:
    assert read_pasted(pasted.encode()) == HEADER

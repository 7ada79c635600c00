"""What `esockd open` warns of: allowed, and mostly a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def warnings(start: Callable[..., Any]) -> Callable[..., list[str]]:
    """The warnings of a command line that is served until it is stopped."""

    def run(*arguments: str) -> list[str]:
        command = start("open", "echo", *arguments)
        command.read_port()
        status, _, err = command.stop()
        assert status == 0
        return [line for line in err.splitlines() if line.startswith("warning: ")]

    return run


@pytest.mark.parametrize("address", ["*:0", "0.0.0.0:0", "[::]:0"])
def test_a_public_listener_that_believes_every_proxy_is_warned_of(
    warnings: Callable[..., list[str]], address: str
) -> None:
    told = f"whoever can reach {address} can claim to be any client: name your proxies with --proxy-trust"
    assert warnings(address, "--proxy-protocol") == [f"warning: {told}"]
    assert warnings(address, "--proxy-protocol", "--proxy-trust", "10.0.0.0/8") == []


@pytest.mark.parametrize("address", ["0", "127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_a_listener_that_only_this_machine_reaches_may_believe_it(
    warnings: Callable[..., list[str]], address: str
) -> None:
    assert warnings(address, "--proxy-protocol") == []


def test_rules_that_can_never_decide_are_warned_of(warnings: Callable[..., list[str]]) -> None:
    rules = ["--deny", "10.0.0.0/8", "--allow", "10.1.2.3", "--allow", "all", "--deny", "192.0.2.1"]
    assert warnings("0", *rules) == [
        f"warning: --{rule} can never decide: rules before it match every client that it matches"
        for rule in ("allow 10.1.2.3", "deny 192.0.2.1")
    ]
    assert warnings("0", "--allow", "127.0.0.0/8") == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_insecure_version_of_tls_is_warned_of(
    warnings: Callable[..., list[str]], tmp_path: Path, version: str
) -> None:
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    told = f"--tls-min {version}: TLS 1.0 and 1.1 are insecure (RFC 8996)"
    assert warnings("tls://127.0.0.1:0", "--cert", "both.pem", "--tls-min", version) == [f"warning: {told}"]
    assert warnings("tls://127.0.0.1:0", "--cert", "both.pem", "--tls-min", "1.2") == []

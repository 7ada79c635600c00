"""Policies by the peer's network."""

from __future__ import annotations

from typing import Any

import pytest

from esockd_proxyproto import InvalidOption, Policy, policy_by_network


def test_the_first_network_that_holds_the_peer_decides() -> None:
    policy = policy_by_network(
        {
            "10.1.0.0/16": Policy.USE,
            "10.0.0.0/8": Policy.REQUIRE,
            "2001:db8::/32": Policy.IGNORE,
            "192.0.2.1": Policy.SKIP,
        },
        default=Policy.REJECT,
    )
    assert policy(("10.1.2.3", 1)) is Policy.USE
    assert policy(("10.2.2.3", 1)) is Policy.REQUIRE
    assert policy(("2001:db8::5", 1)) is Policy.IGNORE
    assert policy(("192.0.2.1", 1)) is Policy.SKIP
    assert policy(("192.0.2.2", 1)) is Policy.REJECT


def test_a_mapped_address_is_the_ipv4_address_it_maps() -> None:
    policy = policy_by_network({"10.0.0.0/8": Policy.USE}, default=Policy.REJECT)
    assert policy(("::ffff:10.0.0.1", 1)) is Policy.USE
    assert policy(("fe80::1%eth0", 1)) is Policy.REJECT


def test_unix_peers_get_the_default() -> None:
    assert policy_by_network({"0.0.0.0/0": Policy.USE}, default=Policy.REQUIRE)("/run/x") is Policy.REQUIRE
    assert policy_by_network({}, default=Policy.REQUIRE)("") is Policy.REQUIRE


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "localhost", None])
def test_what_is_not_a_network_is_an_error_that_names_it(network: Any) -> None:
    with pytest.raises(InvalidOption, match=f"^networks is {network!r}: a network is written as"):
        policy_by_network({network: Policy.USE}, default=Policy.REJECT)


def test_what_is_not_a_policy_is_an_error_that_names_the_policies() -> None:
    with pytest.raises(InvalidOption, match=r"^default is 'maybe': it takes 'require', 'use'"):
        policy_by_network({}, default="maybe")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"^policy is None: "):
        policy_by_network({"10.0.0.0/8": None}, default=Policy.USE)  # type: ignore[dict-item]

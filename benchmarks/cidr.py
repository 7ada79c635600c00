"""Compare access rules with pytricia, netaddr and the standard library's ipaddress, in one run.

    python -m tools.venv .venv-bench bench-cidr
    .venv-bench/bin/python benchmarks/cidr.py            a minute or two
    .venv-bench/bin/python benchmarks/cidr.py --rounds 21

Figures are CPU time per operation, medians over rounds in which every case takes its turn; ratios are taken within a
round. Every candidate gets the same networks and the same addresses, half of them inside a network of the list.

The peers answer simpler questions. pytricia finds the longest prefix and knows no order; `netaddr.IPSet` says whether
an address is in a set and knows no actions; with ipaddress the rules are tried one by one, as a program would write it.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import random
import sys
import time
import tracemalloc
from itertools import cycle
from typing import TYPE_CHECKING, TypeAlias

import netaddr  # type: ignore[import-untyped, import-not-found, unused-ignore]  # a peer of the group bench-cidr
import pytricia  # type: ignore[import-untyped, import-not-found, unused-ignore]  # likewise

from esockd_cidr import AccessList, Network, Rule
from esockd_cidr._table import TableV6
from harness.machine import facts, share_cpus
from harness.rounds import Sample, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.rounds import Series

Run: TypeAlias = "Callable[[], float]"

PREFIX_LENGTHS = {4: (16, 20, 22, 24, 24, 24, 24, 32), 6: (32, 36, 40, 44, 48, 48, 56, 64)}
COST = "µs/op (range)"


def make_networks(version: int, count: int, chance: random.Random) -> list[str]:
    """Different networks with the lengths that lists of this family have; IPv6 in the quarter that is given out."""
    width = 32 if version == 4 else 128
    found: dict[str, None] = {}
    while len(found) < count:
        length = chance.choice(PREFIX_LENGTHS[version])
        value = chance.getrandbits(width) if version == 4 else 2 << 124 | chance.getrandbits(124)
        network = ipaddress.ip_network((value >> width - length << width - length, length))
        found[str(network)] = None
    return list(found)


def make_addresses(version: int, networks: list[str], count: int, chance: random.Random) -> list[str]:
    """Addresses as text, every second one inside a network."""
    width = 32 if version == 4 else 128
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    found = []
    for number in range(count):
        network = ipaddress.ip_network(chance.choice(networks))
        inside = int(network[0]) | chance.getrandbits(width - network.prefixlen or 1) & int(network.hostmask)
        anywhere = chance.getrandbits(width) if version == 4 else 2 << 124 | chance.getrandbits(124)
        found.append(str(make(inside if number % 2 else anywhere)))
    return found


def timed_calls(function: Callable[[str], object], arguments: list[str]) -> Run:
    """Microseconds of CPU time for one call, over all arguments."""

    def run() -> float:
        begin = time.process_time_ns()
        for argument in arguments:
            function(argument)
        return (time.process_time_ns() - begin) / len(arguments) / 1000

    return run


def timed_changes(add: Callable[[str], object], remove: Callable[[str], object], fresh: Iterable[str]) -> Run:
    """Microseconds of CPU time for adding one network, then removing it, halved."""
    supply = cycle(fresh)

    def run() -> float:
        spent = 0
        for _ in range(20):
            network = next(supply)
            begin = time.process_time_ns()
            add(network)
            remove(network)
            spent += time.process_time_ns() - begin
        return spent / 40 / 1000

    return run


def prefix_tree(version: int, networks: list[str]) -> pytricia.PyTricia:
    """A pytricia tree of the networks."""
    tree = pytricia.PyTricia(32 if version == 4 else 128)
    for network in networks:
        tree.insert(network, True)
    return tree


def linear(networks: list[str]) -> Callable[[str], bool]:
    """First match, as ipaddress makes it easy to write."""
    rules = [(ipaddress.ip_network(network), number % 2 == 0) for number, network in enumerate(networks)]

    def allows(text: str) -> bool:
        address = ipaddress.ip_address(text)
        for network, allow in rules:
            if address in network:
                return allow
        return True

    return allows


def measure(title: str, cases: dict[str, Run], rounds: int, baseline: str) -> dict[str, Series]:
    """Run the cases, print their table, and give the series."""
    print(f"\n## {title}\n", flush=True)
    results = interleaved(cases, rounds, lambda name: Sample(cases[name](), {}), lambda _: None)
    rows = [[name, figure(series, 2), f"{series.ratio_to(results[baseline]):.2f}"] for name, series in results.items()]
    print(markdown(["case", COST, f"to {baseline}"], rows), flush=True)
    return results


def lookups(version: int, count: int, rounds: int, chance: random.Random) -> None:
    """Look addresses up in lists of a size."""
    networks = make_networks(version, count, chance)
    addresses = make_addresses(version, networks, 20_000, chance)
    access = AccessList((("deny", "allow")[number % 2], network) for number, network in enumerate(networks))
    tree, members = prefix_tree(version, networks), netaddr.IPSet(networks)
    few = addresses[: max(20, 20_000 // count)]
    measure(
        f"One lookup among {count:,} networks of IPv{version}, address as text",
        {
            "esockd-cidr allows": timed_calls(access.allows, addresses),
            "esockd-cidr match": timed_calls(access.match, addresses),
            "pytricia get": timed_calls(tree.get, addresses),
            "netaddr in IPSet": timed_calls(lambda address: netaddr.IPAddress(address) in members, addresses[:400]),
            "ipaddress one by one": timed_calls(linear(networks), few),
        },
        rounds,
        "pytricia get",
    )


def changes(version: int, count: int, rounds: int, chance: random.Random) -> None:
    """Add and remove single networks in a list of a size."""
    networks = make_networks(version, count, chance)
    fresh = [network for network in make_networks(version, 500, chance) if network not in set(networks)]
    access, tree = AccessList(("deny", network) for network in networks), prefix_tree(version, networks)
    results = measure(
        f"One change among {count:,} rules of IPv{version} (the rule comes first in the list)",
        {
            "esockd-cidr": timed_changes(
                lambda network: access.prepend(("allow", network)),
                lambda network: access.remove(("allow", network)),
                fresh,
            ),
            "pytricia": timed_changes(lambda network: tree.insert(network, True), tree.delete, fresh),
        },
        rounds,
        "pytricia",
    )
    print(f"\nslowest round of esockd-cidr: {max(results['esockd-cidr'].values):.0f} µs a change")


def sizes(version: int, count: int, chance: random.Random) -> None:
    """What building costs, in time and memory."""
    text = "".join(f"deny {network};\n" for network in make_networks(version, count, chance))
    begin = time.process_time_ns()
    rules = AccessList.parse(text).rules
    parsed = (time.process_time_ns() - begin) / 1e9
    gc.collect()
    tracemalloc.start()
    begin = time.process_time_ns()
    access = AccessList(rules)
    compiled = (time.process_time_ns() - begin) / 1e9
    gc.collect()
    beside = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    table = access._view.v4 if version == 4 else access._view.v6  # noqa: SLF001 (no user can ask for its size)
    parts: list[object] = [table.bounds, table.pages, *table.pages]
    if isinstance(table, TableV6):
        parts += table.bounds
        for starts, ranks in table.pages:
            parts += [starts, starts.high, starts.low, ranks]
    one = Rule("deny", Network(4, 10 << 24, 8))
    own = sys.getsizeof(one) + sys.getsizeof(one.target) + sys.getsizeof(1 << (31 if version == 4 else 127))
    print(
        f"\n{count:,} rules of IPv{version}: read and compiled from text in {parsed:.2f} s of CPU time; "
        f"the table lookups read {sum(map(sys.getsizeof, parts)) / count:.1f} bytes a rule, "
        f"everything beside the rules {beside:.1f}, the rules themselves about {own}."
        f" (Compiling under tracemalloc took {compiled:.2f} s.)",
        flush=True,
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="how often each case is measured (11)")
    rounds: int = parser.parse_args().rounds
    for name, value in facts(share_cpus(1), ("esockd-cidr", "pytricia", "netaddr")).items():
        if name != "servers and client":
            print(f"{name}: {value}")
    chance = random.Random(1)
    for version, count in ((4, 10), (4, 1000), (4, 100_000), (6, 100_000)):
        lookups(version, count, rounds, chance)
    changes(4, 100_000, rounds, chance)
    changes(6, 100_000, rounds, chance)
    sizes(4, 100_000, chance)
    sizes(6, 100_000, chance)


if __name__ == "__main__":
    main()

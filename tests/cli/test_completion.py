"""What shells complete, asked in the shells themselves."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import ESOCKD, LIMIT_S, Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import RequireTool

# Each prints what its shell would offer for a line, which ends where the cursor is.
BASH = """
source <(esockd completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
_esockd
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { }
compadd() { print -l -- ${(P)@[-1]} }
_files() { print FILES }
source <(esockd completion zsh)
words=(${(z)1})
[[ $1 == *' ' ]] && words+=('')
CURRENT=$#words
_esockd
"""
FISH = """
esockd completion fish | source
complete -C $argv[1]
"""
SHELLS = {"bash": ("bash", "-c", BASH, "bash"), "zsh": ("zsh", "-fc", ZSH, "zsh"), "fish": ("fish", "-Nc", FISH)}


@pytest.fixture(scope="module")
def edge() -> Iterator[Instance]:
    """Two listeners, of which one name is long and one address has colons."""
    with Instance("echo", "[::1]:0", "127.0.0.1:0", "-n", "mqtt", "-i", "edge") as instance:
        instance.read_address()
        instance.read_address()
        yield instance


@pytest.fixture(params=SHELLS)
def offer(request: pytest.FixtureRequest, require_tool: RequireTool, edge: Instance) -> Callable[[str], list[str]]:
    """What a shell offers, without explanations."""
    _, *arguments = SHELLS[request.param]
    shell = require_tool(request.param)
    environment = {**edge.environment, "PATH": f"{ESOCKD.parent}:{os.environ['PATH']}", "HOME": edge.folder}

    def ask(line: str) -> list[str]:
        done = subprocess.run(
            [shell, *arguments, line], capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
        )
        assert done.stderr == ""
        return [each.partition("\t")[0] for each in done.stdout.split("\n") if each]

    return ask


def test_commands_options_listeners_and_keys_are_offered(offer: Callable[[str], list[str]]) -> None:
    assert offer("esockd conn") == ["connections"]
    assert {*offer("esockd connections ")} == {"list", "kill"}
    assert "mqtt@127.0.0.1:0" in offer("esockd deny mq")
    assert offer("esockd stats -i ed") == ["edge"]
    assert offer("esockd set tcp.nod") == ["tcp.nodelay="]
    assert "--dry-run" in offer("esockd set --dr")
    assert offer("esockd rehearse max_h") == ["max_handshaking="]
    assert offer("esockd rehearse com") == ["commit"]
    assert "--deny" in offer("esockd rehearse --de")


def test_bash_completes_behind_the_colons_and_at_signs_of_an_address(edge: Instance) -> None:
    environment = {**edge.environment, "PATH": f"{ESOCKD.parent}:{os.environ['PATH']}"}
    for line, rest in (("esockd explain mqtt@127", "127.0.0.1:0"), ("esockd explain mqtt@127.0.0.1:", "0")):
        done = subprocess.run(
            ["bash", "-c", BASH, "bash", line],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
            env=environment,
        )
        assert done.stdout.split() == [rest]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("open", "--when-full", ""), "close\nbacklog\n"),
        (("open", "--loop", "t"), "trio\n"),
        (("nothing", ""), ""),
        (("deny", "-i", "none", ""), ""),
        (("open", "echo", "0", "--cert", ""), ""),
    ],
)
def test_words_of_an_option_are_offered_and_unknown_ones_are_not(
    edge: Instance, words: tuple[str, ...], offered: str
) -> None:
    assert edge.run("__complete", *words) == (0, offered, "")


def test_completion_is_quiet_where_nothing_runs(edge: Instance) -> None:
    assert edge.run("__complete", "stats", "", ESOCKD_RUNTIME_DIR=f"{edge.folder}/nowhere") == (0, "", "")

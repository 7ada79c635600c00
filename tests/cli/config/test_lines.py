"""The lines of keys in TOML: the same keys that tomllib finds, each where it stands."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cli.config.lines import find_lines, line_of

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = '''# a comment
[esockd]
loop = "asyncio" # = [x]
"quoted # key" = 'it = [is]'

[listeners.edge]
handler = """
[not.a.table]
key = "value" \\"""
"""
listen = [
  "127.0.0.1:1",  # "]"
  '[::1]:2',
]
tcp_options.nodelay = false
[listeners.edge.tls_options]
sni = { "a.example" = { certfile = "a.pem" }, b = {} }
[[things]]
x = 1
[[things]]
x = 2
[things.more]
y = 1979-05-27T07:32:00Z
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("esockd",), 2),
        (("esockd", "loop"), 3),
        (("esockd", "quoted # key"), 4),
        (("listeners",), 6),
        (("listeners", "edge", "handler"), 7),
        (("listeners", "edge", "listen", 0), 12),
        (("listeners", "edge", "listen", 1), 13),
        (("listeners", "edge", "tcp_options", "nodelay"), 15),
        (("listeners", "edge", "tls_options", "sni", "a.example", "certfile"), 17),
        (("listeners", "edge", "tls_options", "sni", "b"), 17),
        (("things", 0, "x"), 19),
        (("things", 1, "x"), 21),
        (("things", 1, "more", "y"), 23),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_key_has_the_line_on_which_it_stands(path: tuple[str | int, ...], line: int, newline: str) -> None:
    text = TEXT.replace("\n", newline)
    assert tomllib.loads(text)
    assert find_lines(text)[path] == line


def test_a_key_that_stands_nowhere_has_the_line_of_its_table() -> None:
    lines = find_lines(TEXT)
    assert line_of(lines, ("listeners", "edge", "missing")) == 6
    assert line_of(lines, ("missing",)) is None


def test_every_prefix_of_an_empty_text_is_on_no_line() -> None:
    assert find_lines("") == {} == find_lines("# nothing\n\n")


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every key and every item that a parser has found."""
    own = {path} if path else set()
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return own.union(*(paths(each, (*path, key)) for key, each in parts))


KEYS = st.text("ab.#=[]{}\"' \n\\é", min_size=1, max_size=4)
QUOTED: dict[str, Callable[[str], str]] = {
    "basic": lambda text: '"' + "".join(f"\\u{ord(each):04x}" if each in '"\\\n' else each for each in text) + '"',
    "lines": lambda text: '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""',
}
STRINGS = st.tuples(st.sampled_from(sorted(QUOTED)), st.text("ab#=[]{}\"' \n\\,", max_size=6)).map(
    lambda pair: QUOTED[pair[0]](pair[1])
)
VALUES = st.recursive(
    st.one_of(STRINGS, st.sampled_from(["1", "-0.5", "true", "'x # y'", "1979-05-27 07:32:00", "'''a\n''b'''''"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: "[ # ]\n" + " ,\n".join(each) + "\n]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda each: "{" + ", ".join(f"{QUOTED['basic'](key)} = {value}" for key, value in each.items()) + "}"
        ),
    ),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=4)


@given(TABLES, st.booleans())
def test_the_keys_found_are_those_of_tomllib(tables: dict[str, dict[str, str]], is_list: bool) -> None:
    text, starts = "", {}
    for name, table in tables.items():
        header = QUOTED["basic"](name)
        text += f"[[{header}]] # x\n" if is_list else f"[ {header} ]\n"
        for key, value in table.items():
            starts[(name, 0, key) if is_list else (name, key)] = text.count("\n") + 1
            text += f"{QUOTED['basic'](key)}={value}\n"
    lines = find_lines(text)
    assert lines.keys() == paths(tomllib.loads(text))
    assert {path: lines[path] for path in starts} == starts

"""Entries in blocks against one sorted list, with blocks so small that they are split and removed all the time."""

from __future__ import annotations

from array import array
from typing import TypeAlias
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from esockd_cidr import _blocks
from esockd_cidr._blocks import Blocks

Entry: TypeAlias = tuple[int, int]
entries = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2**31)), unique_by=lambda entry: entry[1], max_size=40)


def same(blocks: Blocks[int], model: list[Entry]) -> None:
    keys = [key for key, _ in model]
    assert blocks.keys == keys
    assert len(blocks) == len(model)
    assert sorted(zip(blocks.keys, blocks.values, strict=True)) == sorted(model)
    assert [blocks.key_at(position) for position in range(len(model))] == keys
    for key in set(keys):
        if keys.count(key) == 1:
            assert blocks.value_of(key) == dict(model)[key]
            assert blocks.find(key) == (keys.index(key), dict(model)[key])
    for first, last in ((0, 12), (3, 3), (4, 8), (13, 99)):
        wanted = sorted(value for key, value in model if first <= key <= last)
        assert sorted(blocks.between(first, last)) == wanted


@given(start=entries, added=entries, gone=st.data())
def test_blocks_hold_what_one_sorted_list_would(start: list[Entry], added: list[Entry], gone: st.DataObject) -> None:
    with patch.object(_blocks, "BLOCK", 2):
        model = sorted(start, key=lambda entry: entry[0])
        blocks = Blocks(array("I", [key for key, _ in model]), array("I", [value for _, value in model]))
        same(blocks, model)
        for entry in added:
            if entry[1] in dict.fromkeys(value for _, value in model):
                continue
            blocks.insert(*entry)
            model = sorted([*model, entry], key=lambda each: each[0])
            same(blocks, model)
        while model:
            entry = gone.draw(st.sampled_from(model))
            blocks.remove(*entry)
            model.remove(entry)
            same(blocks, model)
        blocks.insert(7, 1)
        same(blocks, [(7, 1)])

"""What `ListenerControl` returns, as JSON and back."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import esockd_core
from esockd_core import (
    Acceptor,
    ConnectionInfo,
    ConnectionPage,
    Durations,
    Effect,
    Explanation,
    ListenerControl,
    ListenerStatus,
    OptionChange,
    OptionPlan,
    OptionsView,
    PeerCertificate,
    Refusal,
    Refused,
    RuleDecision,
    RulesView,
    Stage,
    Stats,
    TlsInfo,
    TopSource,
    Verdict,
)
from esockd_core._remote.methods import KNOWN_TYPES, METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63)
texts = st.text(max_size=20)
peers = st.tuples(texts, st.integers(0, 65_535)) | texts
actions = st.sampled_from(["allow", "deny"])
option_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | counts | finite | texts | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

durations = st.builds(
    Durations, counts=st.lists(counts, max_size=4).map(tuple), total=finite, bounds=st.lists(finite).map(tuple)
)
times = st.none() | st.datetimes(timezones=st.just(UTC))
certificates = st.builds(
    PeerCertificate,
    subject=st.none() | texts,
    common_name=st.none() | texts,
    issuer=st.none() | texts,
    not_before=times,
    not_after=times,
    serial_number=st.none() | texts,
    subject_alternative_names=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    is_verified=st.booleans(),
    der=st.none() | st.binary(max_size=30),
)
tls_facts = st.from_type(TlsInfo)
st.register_type_strategy(PeerCertificate, certificates)
st.register_type_strategy(
    TlsInfo,
    st.builds(
        TlsInfo,
        version=st.none() | texts,
        cipher=st.none() | texts,
        server_name=st.none() | texts,
        alpn=st.none() | texts,
        peer_certificate=st.none() | certificates,
    ),
)
stages = st.builds(Stage, name=texts, verdict=st.sampled_from(Verdict), reason=texts)
connections = st.builds(
    ConnectionInfo,
    id=counts,
    peername=peers,
    socket_peername=peers,
    sockname=peers,
    state=st.sampled_from(["open", "closing", "closed"]),
    opened_at=finite,
    bytes_in=counts,
    bytes_out=counts,
    draining=st.booleans(),
    tls=st.none() | tls_facts,
)
changes = st.builds(OptionChange, name=texts, old=option_values, new=option_values, effect=st.sampled_from(Effect))
EVERYTHING: dict[type[Any], st.SearchStrategy[Any]] = {
    Acceptor: st.builds(Acceptor, id=counts, address=texts, restarts=counts),
    ConnectionInfo: connections,
    ConnectionPage: st.builds(
        ConnectionPage, connections=st.lists(connections, max_size=3).map(tuple), after=st.none() | counts
    ),
    Durations: durations,
    Explanation: st.builds(Explanation, texts, st.none() | texts, st.lists(stages, max_size=4).map(tuple)),
    ListenerStatus: st.builds(
        ListenerStatus,
        name=texts,
        address=texts,
        state=st.sampled_from(["new", "running", "suspended", "draining", "closed"]),
        addresses=st.lists(texts, max_size=3).map(tuple),
        port=st.none() | st.integers(0, 65_535),
        opened_at=st.none() | finite,
        handler=texts,
    ),
    OptionChange: changes,
    OptionPlan: st.builds(OptionPlan, changes=st.lists(changes, max_size=3).map(tuple)),
    OptionsView: st.builds(OptionsView, st.dictionaries(texts, option_values, max_size=5)),
    PeerCertificate: certificates,
    Refusal: st.builds(Refusal, peer=st.none() | peers, stage=st.sampled_from(Refused), reason=texts, at=finite),
    RuleDecision: st.builds(RuleDecision, action=actions, rule=st.none() | texts, index=st.none() | counts),
    RulesView: st.builds(RulesView, rules=st.lists(texts, max_size=3).map(tuple), default=actions),
    Stage: stages,
    Stats: st.builds(
        Stats,
        **{
            name: {
                "dict[str, int]": st.dictionaries(texts, counts, max_size=3),
                "Durations": durations,
                "float": finite,
            }.get(str(hint), counts)
            for name, hint in Stats.__annotations__.items()
        },
    ),
    TlsInfo: tls_facts,
    TopSource: st.builds(TopSource, source=texts, attempts=counts, open_connections=counts),
}


@pytest.mark.parametrize("kind", EVERYTHING, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_value_comes_back_from_json_as_it_went(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(EVERYTHING[kind])
    travelled = json.loads(json.dumps(value.as_dict(), allow_nan=False))
    back = kind.from_dict(travelled)
    assert back == value
    assert type(back) is kind


def test_properties_are_told_too() -> None:
    refused = Explanation("192.0.2.1", None, (Stage("access rules", Verdict.REFUSE, "deny all"),)).as_dict()
    assert refused["decided_by"] == {"name": "access rules", "verdict": "refuse", "reason": "deny all"}
    assert refused["is_admitted"] is False
    assert Durations((1, 2), 0.5, (0.1,)).as_dict()["count"] == 3
    plan = OptionPlan((OptionChange("tcp.reuse_port", False, True, Effect.REOPEN),))
    assert plan.as_dict()["needs_reopen"] == ["tcp.reuse_port"]


def test_what_a_newer_version_tells_beyond_is_passed_over() -> None:
    newer = {**TopSource("192.0.2.1", 3, 1).as_dict(), "country": "DE"}
    assert TopSource.from_dict(newer) == TopSource("192.0.2.1", 3, 1)
    stage = Stage.from_dict({"name": "luck", "verdict": "perhaps", "reason": "a newer version says so"})
    assert stage.verdict == "perhaps"


@pytest.mark.parametrize(
    ("kind", "given", "complaint"),
    [
        (TopSource, {"source": "::/64", "attempts": 1}, "open_connections is missing"),
        (TopSource, {"source": 5, "attempts": 1, "open_connections": 0}, "source: 5 is not expected"),
        (TopSource, [], "not a mapping"),
        (OptionsView, [], "not a mapping"),
        (RulesView, {"rules": ["deny all", None], "default": "allow"}, "rules: None is not expected"),
        (Refusal, {"peer": ["::1"], "stage": "closed_early", "reason": "", "at": 0}, "peer"),
        (PeerCertificate, {"der": {"base64": "?"}}, "der"),
        (PeerCertificate, {"der": {}}, "does not hold bytes"),
        (PeerCertificate, {"not_before": "yesterday"}, "not_before"),
    ],
)
def test_what_does_not_fit_is_a_value_error_that_says_where(kind: type[Any], given: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        kind.from_dict(given)


def types_in(hint: Any) -> Iterator[type]:
    """Every class of this package that a type is made of."""
    for part in get_args(hint):
        yield from types_in(part)
    if isinstance(hint, type) and hint.__module__.startswith("esockd_core"):
        yield hint


def test_every_type_that_a_control_takes_or_returns_is_exported() -> None:
    waiting = [hint for name in METHODS for hint in public_hints(getattr(ListenerControl, name))]
    seen: set[type] = set()
    while waiting:
        for kind in types_in(waiting.pop()):
            if kind not in seen:
                seen.add(kind)
                waiting += get_type_hints(kind, localns=KNOWN_TYPES).values() if is_dataclass(kind) else ()
    assert {kind.__name__ for kind in seen} - set(esockd_core.__all__) == set()
    assert {Stats, Durations, TlsInfo, PeerCertificate, OptionChange} <= seen


def public_hints(function: Any) -> Iterable[Any]:
    return get_type_hints(function, localns={**KNOWN_TYPES, **vars(esockd_core)}).values()

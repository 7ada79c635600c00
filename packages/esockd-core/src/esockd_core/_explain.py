"""What would happen to a client that came now, stage by stage, without spending anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from esockd_cidr import AccessList, InvalidAddress
from esockd_core._errors import InvalidOption
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._admission import Admission
    from esockd_core._inspection import ListenerState


READER: Final = AccessList(["allow 0.0.0.0"])  # it reads addresses, as a list without rules does not


class Verdict(StrEnum):
    """What a stage would say."""

    PASS = "pass"  # noqa: S105 (no password)
    REFUSE = "refuse"
    WAIT = "wait"
    """The client would be left in the kernel's queue."""
    UNKNOWN = "unknown"
    """Only a real client is asked: the program's own code decides."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the path of a connection.

    Attributes:
        name: Such as "access rules", in the order in which a client passes them.
        verdict: What it would say.
        reason: The deciding rule or limit in words.
    """

    name: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a client.

    Attributes:
        address: The client's.
        upstream: The proxy it would come by; None when it would connect by itself.
        stages: Every stage, those behind a refusal included.
    """

    address: str
    upstream: str | None
    stages: tuple[Stage, ...]

    @property
    def decided_by(self) -> Stage | None:
        """The first stage that refuses the client or makes it wait; None when none does."""
        return next((stage for stage in self.stages if stage.verdict in (Verdict.REFUSE, Verdict.WAIT)), None)

    @property
    def is_admitted(self) -> bool | None:
        """Whether a handler would see the client; None when the program's own code decides."""
        if self.decided_by is not None:
            return False
        return None if any(stage.verdict is Verdict.UNKNOWN for stage in self.stages) else True


def explain(admission: Admission, state: ListenerState, host: str, upstream: str | None) -> Explanation:
    """Explain what would happen to a client.

    Args:
        admission: Of the listener.
        state: The listener's.
        host: The client's address, or "unix:".
        upstream: The address of the proxy it comes by, for a listener that takes PROXY headers.

    Raises:
        InvalidOption: One of them is no address.
    """
    for address in (host, upstream or host):
        try:
            READER.allows(address)
        except InvalidAddress as error:
            raise InvalidOption(str(error)) from error
    return Explanation(host, upstream, tuple(_stages(admission, state, host, upstream or host)))


def _stages(admission: Admission, state: ListenerState, source: str, peer: str) -> Iterator[Stage]:
    yield _state(state)
    if admission.trusted is None:
        yield _access(admission, peer)
    else:
        yield _trust(admission, peer)
        if admission.judges_peer:
            yield _access(admission, peer)
    yield _room(admission)
    if admission.trusted is None:
        yield from _source_limits(admission, source)
    yield _rate(admission)
    yield _load(admission)
    if admission.trusted is not None:
        if admission.judges_source:
            yield _access(admission, source)
        yield from _source_limits(admission, source)


def _state(state: ListenerState) -> Stage:
    match state:
        case "running":
            return Stage("listener", Verdict.PASS, "it accepts")
        case "suspended":
            return Stage("listener", Verdict.WAIT, "it is suspended: clients wait in the kernel's queue")
    return Stage("listener", Verdict.REFUSE, f"it is {state}: nothing listens")


def _access(admission: Admission, host: str) -> Stage:
    verdict = Verdict.PASS if admission.access.allows(host) else Verdict.REFUSE
    return Stage("access rules", verdict, f"{admission.why(host)}, for {host}")


def _trust(admission: Admission, peer: str) -> Stage:
    if admission.trusted is None or admission.trusted.allows(peer):
        return Stage("trusted upstreams", Verdict.PASS, f"{peer} may send a PROXY header, and has to")
    return Stage("trusted upstreams", Verdict.REFUSE, f"{peer} is no trusted upstream")


def _room(admission: Admission) -> Stage:
    most = admission.max_connections
    if admission.has_room():
        return Stage("room", Verdict.PASS, f"{admission.open_count} of {'any number' if most is None else most} open")
    verdict = Verdict.WAIT if admission.waits_for_room else Verdict.REFUSE
    return Stage("room", verdict, f"max_connections is {most}, and so many are open")


def _source_limits(admission: Admission, host: str) -> Iterator[Stage]:
    source = source_key(host)
    if (most := admission.max_per_source) is not None:
        taken = admission.open_by_source.get(source, 0)
        verdict = Verdict.PASS if taken < most else Verdict.REFUSE
        yield Stage("room of its source", verdict, f"{taken} of max_connections_per_source {most} open")
    if admission.source_limiter is not None:
        wait_s = admission.source_limiter.wait_time(source)
        verdict = Verdict.REFUSE if wait_s else Verdict.PASS
        yield Stage("rate of its source", verdict, f"max_conn_rate_per_source {_next_token(wait_s)}")


def _rate(admission: Admission) -> Stage:
    if admission.limiter is None:
        return Stage("rate", Verdict.PASS, "there is no max_conn_rate")
    wait_s = admission.wait_time_s()
    if not wait_s:
        return Stage("rate", Verdict.PASS, f"max_conn_rate {_next_token(wait_s)}")
    verdict = Verdict.WAIT if admission.waits_for_token else Verdict.REFUSE
    return Stage("rate", verdict, f"max_conn_rate {_next_token(wait_s)}")


def _next_token(wait_s: float) -> str:
    return f"has its next token in {wait_s:.3f} s" if wait_s else "has a token"


def _load(admission: Admission) -> Stage:
    if overload := admission.overload():
        return Stage("load", Verdict.REFUSE, overload)
    if admission.load_hook is not None:
        return Stage("load", Verdict.UNKNOWN, "load_hook is asked about real clients only")
    return Stage("load", Verdict.PASS, f"the event loop lags {admission.loop_lag_s:.3f} s")

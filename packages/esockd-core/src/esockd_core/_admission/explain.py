"""What would happen to a client that came now, stage by stage, without spending anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from esockd_cidr import AccessList, InvalidAddress
from esockd_core._errors import InvalidOption
from esockd_core._plain import PlainValue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._admission.admission import Admission
    from esockd_core._stats.state import ListenerState


READER: Final = AccessList(["allow 0.0.0.0"])  # it reads addresses, as a list without rules does not


class Verdict(StrEnum):
    """The verdict of a stage."""

    PASS = "pass"  # noqa: S105 (no password)
    REFUSE = "refuse"
    WAIT = "wait"
    """The client would be left in the kernel's queue."""
    UNKNOWN = "unknown"
    """The program's own code decides, and is only asked for real clients."""


@dataclass(frozen=True, slots=True)
class Stage(PlainValue):
    """One stage of the path of a connection.

    Attributes:
        name: Such as "access rules", in the order in which a client passes them.
        verdict: Its verdict.
        reason: The deciding rule or limit, in words.
    """

    name: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation(PlainValue):
    """What would happen to a client.

    Attributes:
        address: The client's.
        proxy: The proxy that it would use; None if it would connect directly.
        stages: Every stage, including those after a refusal.
    """

    address: str
    proxy: str | None
    stages: tuple[Stage, ...]

    @property
    def decided_by(self) -> Stage | None:
        """The first stage that refuses the client or makes it wait; None when none does."""
        return next((stage for stage in self.stages if stage.verdict in (Verdict.REFUSE, Verdict.WAIT)), None)

    @property
    def is_admitted(self) -> bool | None:
        """Whether a handler would get the client; None if the program's own code decides."""
        if self.decided_by is not None:
            return False
        return None if any(stage.verdict is Verdict.UNKNOWN for stage in self.stages) else True


def explain(
    admission: Admission,
    state: ListenerState,
    host: str,
    proxy: str | None,
    *,
    listens: bool = True,
    has_queue: bool = True,
) -> Explanation:
    """Explain what would happen to a client.

    Args:
        admission: The listener's admission.
        state: The listener's state.
        listens: Whether it has listening sockets: a suspended listener may have lost them in `reopen`.
        has_queue: Whether clients wait in the kernel while it is suspended; those of datagrams do not.
        host: The client's address, or "unix:".
        proxy: The address of the proxy that it uses, if the listener takes PROXY headers.

    Raises:
        InvalidOption: If one of them is not an address.
    """
    for name, address in (("address", host), ("proxy", proxy or host)):
        try:
            READER.allows(address)
        except InvalidAddress as error:
            raise InvalidOption.because(error, name, address) from error
    return Explanation(
        host, proxy, tuple(_stages(admission, _state(state, listens=listens, has_queue=has_queue), host, proxy or host))
    )


def _stages(admission: Admission, state: Stage, source: str, peer: str) -> Iterator[Stage]:
    yield state
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


def _state(state: ListenerState, *, listens: bool, has_queue: bool) -> Stage:
    if state == "suspended" and not listens:
        return Stage("listener", Verdict.REFUSE, "it could not be reopened: nothing listens")
    match state:
        case "running":
            return Stage("listener", Verdict.PASS, "it accepts")
        case "suspended" if not has_queue:
            return Stage("listener", Verdict.REFUSE, "it is suspended: datagrams of new peers are dropped")
        case "suspended":
            return Stage("listener", Verdict.WAIT, "it is suspended: clients wait in the kernel's queue")
    return Stage("listener", Verdict.REFUSE, f"it is {state}: nothing listens")


def _access(admission: Admission, host: str) -> Stage:
    verdict = Verdict.PASS if admission.access.allows(host) else Verdict.REFUSE
    return Stage("access rules", verdict, f"{admission.why(host)}, for {host}")


def _trust(admission: Admission, peer: str) -> Stage:
    if admission.trusted is None or admission.trusted.allows(peer):
        return Stage("trusted proxies", Verdict.PASS, f"{peer} may send a PROXY header, and has to")
    return Stage("trusted proxies", Verdict.REFUSE, f"{peer} is not a trusted proxy")


def _room(admission: Admission) -> Stage:
    most = admission.max_connections
    if admission.has_room():
        taken = admission.places_taken()
        return Stage("room", Verdict.PASS, f"{taken} of {'any number' if most is None else most} open")
    verdict = Verdict.WAIT if admission.waits_for_room else Verdict.REFUSE
    return Stage("room", verdict, f"{admission.room_option} is {most}, and {admission.places_taken()} are open")


def _source_limits(admission: Admission, host: str) -> Iterator[Stage]:
    if (most := admission.max_per_source) is not None:
        taken = admission.source_places_taken(host)
        verdict = Verdict.PASS if taken < most else Verdict.REFUSE
        yield Stage("room of its source", verdict, f"{taken} of max_connections_per_source {most} open")
    if admission.options.max_conn_rate_per_source is not None:
        wait_s = admission.source_wait_time_s(host)
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

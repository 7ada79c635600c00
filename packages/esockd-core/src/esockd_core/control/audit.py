"""The effect of a change as one line of the log, with the old and the new value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from esockd_core._errors import quote
from esockd_core._options.changes import OptionPlan
from esockd_core.control.rehearsal import RehearsalReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from esockd_core._options.changes import OptionChange
    from esockd_core.control.interface import ListenerControl

OF_STATE: Final = frozenset({"suspend", "resume", "drain", "close", "kill"})


async def look_before(control: ListenerControl, method: str) -> Any:
    """The value that a change is about to replace, if its arguments do not tell.

    Args:
        control: The control of the listener.
        method: The name of a method of `ListenerControl`.
    """
    if method == "replace_rules":
        return (await control.get_access_rules()).rules
    if method in OF_STATE or method in ("reopen", "set_handler", "set_options", "reset_options"):
        return await control.get_status()
    return None


async def describe_change(  # noqa: PLR0911 (one for each kind)
    control: ListenerControl, method: str, given: Mapping[str, Any], before: Any, result: Any
) -> str | None:
    """Describe what has changed; None if nothing has.

    Args:
        control: The control of the listener.
        method: The name of a method of `ListenerControl`.
        given: Its parameters as they came.
        before: The result of `look_before`.
        result: The result of the method.
    """
    match method:
        case "set_options" | "reset_options" if isinstance(result, OptionPlan):
            return _changed(result.changes) or None
        case _ if isinstance(result, RehearsalReport):
            return _rehearsed(result)
        case "allow" | "deny":
            return f"access_rules: no rule '{method} {given['network']}' -> the first one"
        case "insert_rule":
            return f"access_rules: no rule {quote(given['rule'])} -> rule {given['index']}"
        case "remove_rule":
            return f"access_rules: rule {quote(given['rule'])} -> none"
        case "replace_rules":
            return f"access_rules {quote(before)} -> {quote(tuple(given.get('rules', ())))}"
        case "set_handler":
            return f"handler {before.handler} -> {(await control.get_status()).handler}"
        case "set_tls":
            return "tls: files as they were read before -> read again"
        case "reopen":
            return f"addresses {quote(before.addresses)} -> {quote((await control.get_status()).addresses)}"
        case "kill_connection" | "kill_connections":
            who = given.get("network", given.get("connection_id"))
            return f"{int(result)} connections ({who}): open -> killed" if result else None
    if method in OF_STATE:
        state = (await control.get_status()).state
        return None if state == before.state else f"state {before.state} -> {state}"
    return "done"


def _changed(changes: Iterable[OptionChange]) -> str:
    return "; ".join(f"{each.name} {quote(each.old)} -> {quote(each.new)}" for each in changes)


def _rehearsed(report: RehearsalReport) -> str:
    rules = f"access_rules: {quote(report.rules)} in front" if report.rules else ""
    told = "; ".join(filter(None, (rules, _changed(report.changes)))) or "nothing different"
    match report.state:
        case "committed":
            return told
        case "cancelled":
            return f"rehearsal: {told} -> none"
    return f"rehearsal: none -> {told}, for {report.duration:g} s"

"""Words that the shell may complete: the names of running instances and of their listeners."""

from __future__ import annotations

from typing import Any


def complete_instance(ctx: Any, incomplete: str) -> list[str]:
    """Names of instances, running or not: only connecting would tell."""
    del ctx
    from esockd_core import find_control_sockets  # noqa: PLC0415 (where the shell asks)

    return [name for name in find_control_sockets() if name.startswith(incomplete)]


def complete_listener(ctx: Any, incomplete: str) -> list[str]:
    """Names of listeners, with their address where several have the name."""
    import anyio  # noqa: PLC0415

    from esockd_cli._errors import CommandError  # noqa: PLC0415
    from esockd_cli._instances import find_instances, short_name  # noqa: PLC0415

    try:
        found = anyio.run(find_instances)
    except CommandError:
        return []
    wanted = ctx.params.get("instance")
    of_instances = [each.listeners for each in found if wanted in (None, each.greeting.name, str(each.path))]
    words = {short_name(status, listeners): None for listeners in of_instances for status in listeners}
    return [word for word in words if word.startswith(incomplete)]


def complete_rehearsal(ctx: Any, incomplete: str) -> list[str]:
    """What is to be done about a rehearsal, names of listeners, and the options that can be rehearsed."""
    from esockd_cli._settings import OPTIONS_OF_LISTENERS  # noqa: PLC0415
    from esockd_core import REHEARSED  # noqa: PLC0415

    before = ctx.params.get("words") or []
    verbs = [] if before else [verb for verb in ("commit", "cancel") if verb.startswith(incomplete)]
    listeners = complete_listener(ctx, incomplete) if not before or before in (["commit"], ["cancel"]) else []
    options = [name for name in REHEARSED if OPTIONS_OF_LISTENERS[name].kind.is_text and name.startswith(incomplete)]
    return [*verbs, *listeners, *(f"{name}=" for name in options if before[:1] not in (["commit"], ["cancel"]))]


def complete_listener_or_option(ctx: Any, incomplete: str) -> list[str]:
    """Names of listeners, and of options."""
    from esockd_cli._settings import OPTIONS_OF_LISTENERS  # noqa: PLC0415

    options = [name for name, option in OPTIONS_OF_LISTENERS.items() if option.kind.is_text]
    tail = "=" if ctx.info_name == "set" else ""
    words = [f"{name}{tail}" for name in options if name.startswith(incomplete)]
    return [*([] if ctx.params.get("words") else complete_listener(ctx, incomplete)), *words]

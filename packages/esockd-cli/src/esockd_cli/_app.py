"""The parser of all commands, and its errors in the words of this command."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperGroup

from esockd_cli._commands import Command
from esockd_cli._errors import ExitCode, UsageError, did_you_mean
from esockd_cli._plain_texts import read_as_they_are
from esockd_cli._version import print_version

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM: Final = "esockd"

# Each with the module that has its function, imported when it is used, and with one line of help. The function has the
# name of the command, and so has its class if it needs its own; the module's EXAMPLES has arguments that make sense.
COMMANDS: Final = {
    "open": ("esockd_cli._open", "Run a listener on each address until SIGINT or SIGTERM."),
    "run": ("esockd_cli.commands.run", "Run the listeners of a configuration until SIGINT or SIGTERM."),
    "check": ("esockd_cli.commands.check", "Say everything that is wrong with a configuration, and run nothing."),
    "config": ("", "Show what may stand in a configuration, and what is in force."),
    "ps": ("esockd_cli.commands.ps", "List the running instances and their listeners."),
    "stats": ("esockd_cli.commands.stats", "Show the counters of the listeners of an instance."),
    "top": ("esockd_cli.top.command", "Watch the listeners of a running instance; ? tells the keys."),
    "connections": ("", "List and close the connections of a listener."),
    "allow": ("esockd_cli.commands.access", "Let clients in, by a rule before all others."),
    "deny": ("esockd_cli.commands.access", "Keep clients out, by a rule before all others."),
    "rules": ("", "List, change and test the access rules of a listener."),
    "explain": (
        "esockd_cli.commands.admission",
        "Say what would happen to a client that came now, stage by stage.",
    ),
    "rejects": (
        "esockd_cli.commands.admission",
        "List the last refused clients of a listener: when, who, by which stage and why.",
    ),
    "top-sources": (
        "esockd_cli.commands.admission",
        "List who comes most often to a listener, admitted or not; IPv6 clients by their /64.",
    ),
    "get": ("esockd_cli.commands.options", "Show the options of a listener that are in force, as KEY=VALUE."),
    "set": (
        "esockd_cli.commands.options",
        "Change options of a listener, all at once or none; open connections stay.",
    ),
    "rehearse": (
        "esockd_cli.commands.rehearse",
        "Judge every real client by changed rules and limits, refuse nobody, and count whom they would refuse.",
    ),
    "suspend": (
        "esockd_cli.commands.life",
        "Stop accepting; open connections go on, and new clients wait in the kernel's queue.",
    ),
    "resume": ("esockd_cli.commands.life", "Accept again."),
    "drain": (
        "esockd_cli.commands.life",
        "Close a listener gracefully, and return when its last connection has ended.",
    ),
    "close": (
        "esockd_cli.commands.life",
        "Close a listener gracefully, each handler having its shutdown_timeout.",
    ),
    "reopen": (
        "esockd_cli.commands.life",
        "Close the listening sockets and open new ones, here or at another address; connections stay open.",
    ),
    "restart": (
        "esockd_cli.commands.life",
        "Replace the workers of an instance one after the other, by ones that run the code installed now.",
    ),
    "upgrade": (
        "esockd_cli.commands.life",
        "Start the program of an instance anew, with the code installed now, on the same sockets.",
    ),
    "reload": (
        "esockd_cli.commands.reload",
        "Read the configuration of an instance again: all of it is put in force, or nothing.",
    ),
    "bench": (
        "esockd_cli.commands.bench",
        "Put load on an echo server, compare every byte that comes back, and say how long the answers took.",
    ),
    "doctor": (
        "esockd_cli.commands.doctor",
        "Look for what is wrong or doubtful about this machine, running instances, or a configuration.",
    ),
    "metrics": ("esockd_cli.commands.metrics", "Write the metrics of an instance as Prometheus reads them."),
    "cidr": ("", "Say what networks and access rules mean, without a listener."),
    "proxy": ("", "Write and read PROXY protocol headers."),
    "completion": (
        "esockd_cli.commands.completion",
        "Write the script that lets a shell complete commands, options and names of listeners.",
    ),
}
GROUPS: Final = {
    "connections": {
        "list": ("esockd_cli.commands.connections", "List the open connections of a listener, the oldest first."),
        "kill": ("esockd_cli.commands.connections", "Close connections at once, and cancel their handlers."),
    },
    "rules": {
        "list": (
            "esockd_cli.commands.access",
            "List the access rules of a listener in their order; the first that matches decides.",
        ),
        "insert": ("esockd_cli.commands.access", "Put an access rule at a position."),
        "remove": ("esockd_cli.commands.access", "Take an access rule out."),
        "replace": ("esockd_cli.commands.access", "Exchange all access rules at once."),
        "test": (
            "esockd_cli.commands.access",
            "Say what the access rules decide about an address, and which of them.",
        ),
    },
    "config": {
        "show": (
            "esockd_cli.commands.config",
            "Show what is in force in an instance of esockd run, and where each value comes from.",
        ),
        "example": ("esockd_cli.commands.config", "Write a configuration file with every key, commented."),
    },
    "cidr": {
        "explain": (
            "esockd_cli.commands.cidr",
            "Say what a network means: its first and last address, how many, and whose.",
        ),
        "lint": (
            "esockd_cli.commands.cidr",
            "Find what is wrong or doubtful in access rules: bad ones, duplicates, and those that can never decide.",
        ),
    },
    "proxy": {
        "encode": ("esockd_cli.commands.proxy", "Write a PROXY protocol header, as hex or as bytes."),
        "decode": ("esockd_cli.commands.proxy", "Read a PROXY protocol header, of either version."),
    },
}


class Commands(TyperGroup):
    """Commands, of which only the one that is used costs its imports."""

    table: ClassVar[Mapping[str, tuple[str, str]]] = COMMANDS
    group: ClassVar[str] = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without any, show how to use the group."""
        if not args and self.group and not ctx.resilient_parsing:
            typer.echo(
                f"Usage: {ctx.command_path} {'|'.join(self.table)} ...\nSee: {ctx.command_path} --help", err=True
            )
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options."""
        return read_as_they_are(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        del ctx
        return [*self.table]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; None when there is none."""
        del ctx
        return make_command(cmd_name, self.group) if cmd_name in self.table else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line for each command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(self.table_rows())

    def table_rows(self) -> list[tuple[str, str]]:
        """Each command with its line of help."""
        return [(name, text) for name, (_, text) in self.table.items()]


def make_command(name: str, group: str = "") -> Any:
    """Import a command, and make its parser; a group has only its own."""
    if not group and name in GROUPS:
        return _make_group(name)
    module = import_module((GROUPS[group] if group else COMMANDS)[name][0])
    kind: type[Command] = getattr(module, f"{name.capitalize()}Command", Command)
    full_name = f"{group} {name}".strip()
    if full_name in (examples := getattr(module, "EXAMPLES", {})):
        kind = type(kind.__name__, (kind,), {"example": examples[full_name]})
    command = typer.Typer(**SETTINGS)
    command.command(name, cls=kind)(getattr(module, f"{re.sub('[ -]', '_', full_name)}_command"))
    return typer.main.get_command(command)


def _make_group(name: str) -> Any:
    kind = type("Group", (Commands,), {"table": GROUPS[name], "group": name})
    group = typer.Typer(cls=kind, help=COMMANDS[name][1], **SETTINGS)
    group.callback()(_nothing)
    return typer.main.get_command(group)


def _nothing() -> None: ...


SETTINGS: Final[dict[str, Any]] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "pretty_exceptions_enable": False,
}
app = typer.Typer(cls=Commands, **SETTINGS)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print_version()
        raise typer.Exit


@app.callback()
def _esockd(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run and inspect hardened socket listeners."""


def run_app(arguments: list[str]) -> int:
    """Parse a command line and run its command.

    Raises:
        CommandError: The command line is wrong, or the command failed.
    """
    if not arguments:
        typer.echo(f"Usage: {PROGRAM} COMMAND ...\nTry: {PROGRAM} open echo 5000\nSee: {PROGRAM} --help", err=True)
        return ExitCode.USAGE
    try:
        status = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        raise _usage_error(error, arguments) from None
    return status if isinstance(status, int) else ExitCode.OK


def _usage_error(error: typer.TyperException, arguments: list[str]) -> UsageError:
    if arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        from esockd_cli._handlers import KINDS  # noqa: PLC0415

        is_handler = arguments[0].partition(":")[0] in KINDS
        hint = f"Write: {PROGRAM} open {' '.join(arguments)}" if is_handler else did_you_mean(arguments[0], COMMANDS)
        message = f'there is no command "{arguments[0]}".'
        return UsageError(message, code="unknown_command", hint=hint or f"See: {PROGRAM} --help")
    option = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if option and near:
        return UsageError(f"no such option: {option}.", code="unknown_option", hint=f"Did you mean {near[0]}?")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    message = error.format_message()
    return UsageError(f"{message[:1].lower()}{message[1:].rstrip('.')}.", hint=f"See: {command} --help")

"""`esockd cidr`: what networks and access rules mean, without a listener."""

from __future__ import annotations

from typing import Annotated

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

EXAMPLES = {"cidr explain": "10.1.2.3/8 2001:db8::/32", "cidr lint": "rules.txt"}


@speaks
def cidr_explain_command(
    output: Output,
    *,
    networks: Annotated[
        list[str], typer.Argument(metavar="CIDR...", help="Addresses, or networks such as 10.0.0.0/8 or 2001:db8::/32.")
    ],
) -> int:
    """Say what a network means: its first and last address, how many, and whose."""
    from esockd_cidr import InvalidRule, parse_network  # noqa: PLC0415
    from esockd_cli._errors import ExitCode, UsageError  # noqa: PLC0415
    from esockd_cli._networks import describe_network  # noqa: PLC0415

    described = []
    for text in networks:
        try:
            described.append(describe_network(text, parse_network(text)))
        except InvalidRule as error:
            raise UsageError(f'bad CIDR "{text}": {error.reason}.', code="bad_cidr", hint=error.hint) from error
    if output.as_json:
        output.data(None, networks=described)
        return ExitCode.OK
    for position, each in enumerate(described):
        rows = [f"{name:10}{value}" for name, value in each.items() if value is not None]
        output.data("\n".join([*([""] if position else []), *rows]))
    return ExitCode.OK


@speaks
def cidr_lint_command(
    output: Output,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file with one rule a line, or - for stdin.")] = "-",
) -> int:
    """Find what is wrong or doubtful in access rules: bad ones, duplicates, and those that can never decide.

    The rules are such as "deny 10.0.0.0/8", in order, one a line, with or without a semicolon. The status is 1 where
    there is anything to say.
    """
    import sys  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from esockd_cidr import lint  # noqa: PLC0415
    from esockd_cli._columns import clean  # noqa: PLC0415
    from esockd_cli._errors import ExitCode, UsageError  # noqa: PLC0415

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f'cannot read "{file}": {why}.', code="cannot_read") from error
    name = "stdin" if file == "-" else file
    findings = lint(text)
    lines = [
        clean(f"{name}:{each.line}: {each.text}: {each.reason}.{f' {each.hint}' if each.hint else ''}")
        for each in findings
    ]
    output.data(
        "\n".join(lines) if lines else None,
        file=name,
        findings=[
            {
                "line": each.line,
                "text": each.text,
                "flaw": each.flaw,
                "reason": each.reason,
                "hint": each.hint,
                "others": [other.line for other in each.others],
            }
            for each in findings
        ],
    )
    if not findings:
        output.note(f"{name}: nothing is wrong")
    return ExitCode.FAILED if findings else ExitCode.OK

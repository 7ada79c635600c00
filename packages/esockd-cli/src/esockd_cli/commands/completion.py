"""`esockd completion`: scripts that let shells complete its words."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

EXAMPLES = {"completion": "bash > /etc/bash_completion.d/esockd"}


def completion_command(
    *, shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="bash|zsh|fish", help="Of which shell.")]
) -> int:
    """Write the script that lets a shell complete commands, options and names of listeners.

    For this session alone: source <(esockd completion bash), or esockd completion fish | source
    """
    from esockd_cli._completion_scripts import SCRIPTS  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415

    sys.stdout.write(SCRIPTS[shell])
    return ExitCode.OK

"""`esockd run`: many listeners from a configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from esockd_cli._output import Output
from esockd_cli._parameters import speaks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esockd_cli._errors import ExitCode
    from esockd_cli.config.problems import BadConfig

EXAMPLES = {"run": "edge.toml --watch"}


@speaks
def run_command(
    output: Output,
    *,
    ctx: typer.Context,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The file, in TOML.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Reload when the file, or a certificate that it names, changes.")
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="N|auto",
            help="How many worker processes serve, auto for one for each processor; as in the file when not given.",
        ),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            "-i",
            metavar="NAME",
            help="Name of this process for the other commands; as in the file, or that of the file, when not given.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="ADDRESS",
            help="Serve /metrics for Prometheus, /healthz and /readyz there; as in the file when not given.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="NAME",
            help="User that serves, once root has opened the ports; as in the file when not given.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="NAME",
            help="Group of that user; as in the file, or the user's own, when not given.",
        ),
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard", help="Show the live dashboard in this terminal; q leaves it, and the listeners go on."
        ),
    ] = False,
) -> int:
    """Run the listeners of a configuration until SIGINT or SIGTERM.

    SIGHUP and esockd reload read the file again: all of it is put in force, or nothing.
    """
    from dataclasses import replace  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from esockd_cli._control import read_control  # noqa: PLC0415
    from esockd_cli._errors import ExitCode  # noqa: PLC0415
    from esockd_cli._host import read_host, set_up_process  # noqa: PLC0415
    from esockd_cli._log_file import read_log_file  # noqa: PLC0415
    from esockd_cli._run import run  # noqa: PLC0415
    from esockd_cli._serving_as import serve_as  # noqa: PLC0415
    from esockd_cli.config.problems import BadConfig  # noqa: PLC0415
    from esockd_cli.config.read import read_config  # noqa: PLC0415
    from esockd_cli.config.running import ConfigFile  # noqa: PLC0415

    def refuse(error: BadConfig) -> ExitCode:
        for problem in error.problems:
            output.error(problem.error())
        return ExitCode.CANNOT_START

    def leaves_modules(program: Mapping[str, Any]) -> bool:
        """Whether workers import them, or perhaps another user."""
        given = (workers, user, group, *map(program.get, ("workers", "user", "group")))
        return any(each is not None for each in given)

    try:
        configuration = read_config(config, has_workers=workers is not None, leaves_modules=leaves_modules)
    except BadConfig as error:
        return refuse(error)
    program: Any = configuration.program
    log_to, log_file = program.get("log_to", "stderr"), program.get("log_file")
    output = replace(
        output,
        log_form=program.get("log_format", "auto"),
        log_to=log_to,
        log_file=read_log_file(log_file and str(configuration.source.folder / log_file), log_to),
        log_level=program.get("log_level"),
    )
    host = read_host(
        metrics=program.get("metrics") if metrics is None else metrics,
        user=program.get("user") if user is None else user,
        group=program.get("group") if group is None else group,
    )
    set_up_process(ctx, output, host, has_dashboard=dashboard)
    configuration.warn()
    control = read_control(
        instance or program.get("instance"),
        Path(config).stem,
        program.get("read_only"),
        is_wanted=not program.get("no_control", False),
        has_dashboard=dashboard,
    )
    file = ConfigFile(configuration, output, is_watched=watch)
    count = program.get("workers") if workers is None else workers
    if count is not None:
        from esockd_cli._run_workers import run_workers  # noqa: PLC0415
        from esockd_cli._worker_count import read_workers  # noqa: PLC0415
        from esockd_cli._worker_listener import worker_listener  # noqa: PLC0415

        listeners = [worker_listener(each, configuration.app_dir) for each in configuration.openings]
        return run_workers(
            listeners, read_workers(str(count)), program.get("loop", "auto"), output, control, host=host, file=file
        )
    serve_as(host, [(each.address, each.options) for each in configuration.openings])
    try:
        configuration = configuration.with_modules()
    except BadConfig as error:
        return refuse(error)
    file = ConfigFile(configuration, output, is_watched=watch)
    return run(configuration.openings, program.get("loop", "auto"), output, control, file, host=host)

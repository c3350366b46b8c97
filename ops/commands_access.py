"""`tunnel`, `exec`, `logs`: ways into what runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ops.console import Environment, Json, OperatorError, show


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(tunnel)
    # What follows the service belongs to the command, its options too.
    app.command(name="exec", context_settings={"ignore_unknown_options": True})(execute)
    app.command()(logs)


def tunnel(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[webserver|flower|mlflow|database]…")
    ] = None,
    environment: Environment = "local",
    local_port: Annotated[
        list[int] | None,
        typer.Option("--local-port", help="The port on this machine; once for each service, in their order."),
    ] = None,
    ssh_config: Annotated[
        bool, typer.Option("--ssh-config", help="Print a block for ~/.ssh/config instead, for `ssh -L`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forward ports of this machine through the bastion to services: webserver 8080 and flower 5555 by default."""
    from ops import tunnel as tunnels
    from ops.target import target_of

    target = target_of(environment)
    if services is None:
        services = ["webserver", *(["flower"] if target.config.services.flower else [])]
    wanted = tunnels.forwards(target, services, local_port or [])
    if target.is_local:
        if local_port or ssh_config:
            raise OperatorError(
                "the laptop's services need no tunnel; leave out --local-port and --ssh-config"
            )
        wanted = tunnels.on_this_laptop(wanted)
    document = {"tunnels": [{"service": item.service, "url": item.url} for item in wanted]}
    if ssh_config:
        text = tunnels.ssh_config(target, wanted)
        show({"ssh_config": text}, as_json, text)
        return
    opened = [] if target.is_local else tunnels.open_all(target, wanted)
    show(document, as_json, "\n".join(f"{item.service:<10} {tunnels.how_to_reach(item)}" for item in wanted))
    if opened:
        tunnels.keep_all(opened)


def execute(
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    command: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND…]")] = None,
    environment: Environment = "local",
) -> None:
    """Run a command, or a shell, in the newest container of a service: scheduler, worker-default, …"""
    from ops import execute as executed
    from ops.target import target_of

    sys.exit(executed.run(target_of(environment), service, command or []))


def logs(
    what: Annotated[str | None, typer.Argument(metavar="[SERVICE|RUN_ID]")] = None,
    environment: Environment = "local",
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="DAG/RUN_ID[/TASK]", help="A run of one DAG, or a task in it."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, or the run's end.")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, help="How many of the newest lines.")] = 100,
    as_json: Json = False,
) -> None:
    """Show the newest log lines of a service (scheduler, worker-default, …) or of a DAG run."""
    from ops import logs as reader
    from ops.target import target_of

    if (what is None) == (run is None):
        raise OperatorError("logs wants either a service or run id, or --run DAG/RUN_ID")
    if follow and as_json:
        raise OperatorError(
            "--follow streams plain lines and has no end to print one document at: leave out --json"
        )
    source = reader.source_of(target_of(environment), what, run)
    if follow:
        sys.exit(reader.print_until_stopped(reader.follow(source, lines=lines)))
    found = source.newest(lines)
    show({"of": what or run, "lines": found}, as_json, "\n".join(found))

"""The command line. Each group of commands stands in a module of its own; this one only joins them."""

from __future__ import annotations

import json
import sys

import typer

from ops import (
    commands_access,
    commands_aws,
    commands_bench,
    commands_checks,
    commands_dags,
    commands_delivery,
    commands_jobs,
    commands_life,
    commands_lineage,
    commands_new,
    commands_operation,
    commands_scale,
    commands_security,
    console,
)
from ops.bootstrap import BootstrapError
from ops.console import OperatorError

app = typer.Typer(
    name="updraft",
    help="Airflow on ECS with SageMaker workflows, in your own AWS account or on this laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (
    commands_life,
    commands_new,
    commands_aws,
    commands_dags,
    commands_delivery,
    commands_access,
    commands_jobs,
    commands_lineage,
    commands_scale,
    commands_operation,
    commands_security,
    commands_checks,
    commands_bench,
):
    group.register(app)


def main() -> None:
    """Run one command; every failure that a user can act on is told in plain words, without a traceback."""
    try:
        app()
    except (OperatorError, BootstrapError) as error:
        print(f"updraft: {error}", file=sys.stderr)
        if "--json" in sys.argv and not console.has_shown():
            print(json.dumps({"error": str(error)}))
        sys.exit(1)
    except OSError as error:
        # A full disk, a missing permission: what the system says, and where.
        print(f"updraft: {error.strerror or error}: {error.filename or 'see above'}", file=sys.stderr)
        if "--json" in sys.argv and not console.has_shown():
            print(json.dumps({"error": str(error)}))
        sys.exit(1)
    except KeyboardInterrupt:
        print("updraft: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

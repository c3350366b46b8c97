"""The command line. Each group of commands stands in a module of its own; this one only joins them."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

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
        _fail(str(error))
    except SystemExit as ended:
        if _is_interruption(ended):
            print("updraft: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise
    except Exception as error:
        # Loaded only now: what asks AWS nothing need not wait for its SDK, some of whose errors are OSErrors too.
        from ops import aws_errors

        if isinstance(error, aws_errors.ERRORS):
            _fail(aws_errors.in_words(error))
        if isinstance(error, OSError):
            # A full disk, a missing permission: what the system says, and where.
            _fail(f"{error.strerror or error}: {error.filename or 'see above'}", str(error))
        raise


def _is_interruption(ended: BaseException | None) -> bool:
    """Whether Ctrl-C ended the command: Typer makes an exit of it, as it does of a code that a command returns."""
    while ended is not None and not isinstance(ended, KeyboardInterrupt):
        ended = ended.__cause__ or ended.__context__
    return ended is not None


def _fail(line: str, document: str | None = None) -> NoReturn:
    """Tell a failure on standard error, and with --json as the one document, which may say it in other words."""
    print(f"updraft: {line}", file=sys.stderr)
    if "--json" in sys.argv and not console.has_shown():
        print(json.dumps({"error": line if document is None else document}))
    sys.exit(1)


if __name__ == "__main__":
    main()

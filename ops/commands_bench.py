"""`bench`: runs one of the benchmarks, each a folder of `benchmarks/`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from ops.bootstrap import ROOT, TOOLS, environment_python
from ops.console import Json, OperatorError

BENCHMARKS = ROOT / "benchmarks"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)


def names() -> list[str]:
    """The benchmarks that there are."""
    return sorted(file.parent.name for file in BENCHMARKS.glob("*/__main__.py"))


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A folder of benchmarks/.")],
    as_json: Json = False,
) -> None:
    """Run a benchmark; what follows its name goes to it. Its figures are one JSON document on standard output."""
    if name not in names():
        raise OperatorError(f"no benchmark '{name}': there are {', '.join(names())}")
    ran = subprocess.run(
        [
            environment_python(TOOLS),
            "-m",
            f"benchmarks.{name}",
            *(["--json"] if as_json else []),
            *context.args,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    sys.exit(ran.returncode)

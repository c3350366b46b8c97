"""`test`: everything that must hold, in one command."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Annotated, Any

import typer

from ops.bootstrap import ROOT, TOOLS, ensure_environment, ensure_node, environment_python
from ops.console import Json, OperatorError, say, show
from ops.laptop import IMAGES, every_image

CHECKED = [
    "app.py",
    "stacks",
    "lambdas",
    "runtime",
    "dags",
    "ml",
    "ops",
    "local",
    "benchmarks",
    "notebooks",
    "tests",
]
QUICK = "not synth and not account and not platform and not image"
WHOLE = "not image"
IMAGE_TESTS = "image"
PIPELINE_TESTS = "tests/pipelines"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(name="test")(run_tests)


def run_tests(
    fast: Annotated[bool, typer.Option("--fast", help="Only lint, types and unit tests.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Only the tests of the real images; they need a Docker engine.")
    ] = False,
    pipelines: Annotated[
        bool,
        typer.Option(
            "--pipelines", help="Only the pipelines, each on the running platform; starts one if need be."
        ),
    ] = False,
    select: Annotated[
        str | None, typer.Option("-k", help="Only tests whose names match, as in pytest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lint, types, unit tests, synth of every environment, the emulated account and the platform end to end."""
    if images and pipelines:
        raise OperatorError("--images and --pipelines: each is a run of its own; choose one")
    for image in every_image() if pipelines else IMAGES:
        ensure_environment(image)
    ensure_node()
    marked = IMAGE_TESTS if images else QUICK if fast else WHOLE
    chosen = [PIPELINE_TESTS] if pipelines else ["-m", marked]
    pytest = ["pytest", "-q", *chosen, *(["-k", select] if select else [])]
    stages = {
        "lint": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy", *CHECKED],
        "tests": pytest,
    }
    if images or pipelines:
        stages = {"tests": pytest}
    results: list[dict[str, Any]] = []
    for name, command in stages.items():
        say(f"· {name}: {' '.join(command)}")
        started = time.monotonic()
        # With --json, standard output belongs to the one document.
        code = subprocess.run(
            [environment_python(TOOLS), "-m", *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=2 if as_json else None,
            check=False,
        ).returncode
        results.append({"stage": name, "exit": code, "seconds": round(time.monotonic() - started, 1)})
    failed = [result["stage"] for result in results if result["exit"] != 0]
    show(
        {"passed": not failed, "stages": results},
        as_json,
        "\n".join(
            f"{row['stage']:<8} {'ok' if row['exit'] == 0 else 'FAILED'}  {row['seconds']} s"
            for row in results
        ),
    )
    if failed:
        raise OperatorError(f"failed: {', '.join(failed)}")

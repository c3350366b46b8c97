"""`test`: everything that must hold, in one command."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

import typer

from ops.bootstrap import NOTEBOOK, ROOT, TOOLS, ensure_environment, ensure_node, environment_python
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
PLATFORM = "platform and not image"
ACCOUNT = "account and not platform and not image"
REST = "not account and not platform and not image"
PYTEST_STAGES = ("tests", "platform", "account")
NOTHING_COLLECTED = 5
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
    if not (fast or images or pipelines):
        ensure_environment(NOTEBOOK)
    ensure_node()
    selected = ["-k", select] if select else []
    if images or pipelines:
        chosen = [PIPELINE_TESTS] if pipelines else ["-m", IMAGE_TESTS]
        stages, beside = {"tests": ["pytest", "-q", *chosen, *selected]}, {}
    else:
        stages = {
            "lint": ["ruff", "check", "."],
            "format": ["ruff", "format", "--check", "."],
            "types": ["mypy", *CHECKED],
            "tests": ["pytest", "-q", "-m", QUICK if fast else REST, *selected],
        }
        marks = {} if fast else {"platform": PLATFORM, "account": ACCOUNT}
        beside = {name: ["pytest", "-q", "-m", mark, *selected] for name, mark in marks.items()}
    results = _run_stages(stages, beside, as_json)
    if select and any(result["exit"] == 0 for result in results if result["stage"] in PYTEST_STAGES):
        # What is selected may be in one of them.
        results = [result for result in results if result["exit"] != NOTHING_COLLECTED]
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


def _run_stages(
    stages: dict[str, list[str]], beside: dict[str, list[str]], as_json: bool
) -> list[dict[str, Any]]:
    """Run stages after each other, and beside them those that often wait, whose output comes at the end."""
    with ThreadPoolExecutor(1) as pool, ExitStack() as files:
        outputs = {name: files.enter_context(TemporaryFile()) for name in beside}
        waiting = [pool.submit(_run_stage, name, beside[name], outputs[name]) for name in beside]
        # With --json, standard output belongs to the one document.
        results = [_run_stage(name, command, 2 if as_json else None) for name, command in stages.items()]
        for name, running in zip(beside, waiting, strict=True):
            results.append(running.result())
            outputs[name].seek(0)
            say(f"· {name}:\n{outputs[name].read().decode(errors='replace')}")
    return results


def _run_stage(name: str, command: list[str], output: IO[bytes] | int | None) -> dict[str, Any]:
    say(f"· {name}: {' '.join(command)}")
    started = time.monotonic()
    with subprocess.Popen(
        [environment_python(TOOLS), "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=output,
        stderr=None if output is None or isinstance(output, int) else subprocess.STDOUT,
    ) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # It was told as well, and stops what it has started.
            process.wait()
            raise
    return {"stage": name, "exit": code, "seconds": round(time.monotonic() - started, 1)}

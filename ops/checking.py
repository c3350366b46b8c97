"""Checks a folder of DAGs as a push would, without a platform: the very import test, in the runtime's environment."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ops.bootstrap import ROOT, ensure_environment
from ops.console import OperatorError, step
from runtime.import_test import ImportTester, Limits, Report
from runtime.release import Release, build_release
from runtime.release_check import ReleaseError

IMAGE = "airflow"
# What the image has on its Python path; nothing else of this checkout may be imported by a DAG.
IN_THE_IMAGE = ("runtime",)
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '(?P<module>[^'.]+)")
LOCK_COMMAND = (
    "uv pip compile --universal --generate-hashes --python-version 3.11 --no-annotate --no-header "
    "requirements.in -o requirements.txt"
)


@dataclass(frozen=True)
class Finding:
    """One error: `file` as the user has it, its `line` where it is known, and what to do where that is clear."""

    file: str
    line: int | None
    error: str
    advice: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.error}" + (f"\n    {self.advice}" if self.advice else "")


def check(dags: Path, *, limits: Limits | None = None) -> dict[str, Any]:
    """Import-test a folder and return its `version`, `dag_ids` and `errors`, each a Finding's fields.

    Raises OperatorError when the folder can't be a bundle at all.
    """
    python = ensure_environment(IMAGE)
    with tempfile.TemporaryDirectory(prefix="updraft-check-") as scratch_name:
        scratch = Path(scratch_name).resolve()
        release = scratch / "release"
        built = build(dags, scratch / "bundle")
        with zipfile.ZipFile(built.archive) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith("release/")])
        with (
            step(f"importing {dags}"),
            _as_in_the_image(scratch / "image"),
            ImportTester(limits, python=python) as tester,
        ):
            report = tester.test(release)
        findings = _findings(report, release, dags)
    return {
        "version": built.version,
        "dag_ids": report.dag_ids,
        "errors": [asdict(finding) for finding in findings],
    }


def build(dags: Path, output: Path) -> Release:
    """Write the bundle that a push would send to a folder; raises OperatorError when there is none to be made."""
    if not dags.is_dir():
        raise OperatorError(f"--dags {dags}: no such folder")
    try:
        return build_release(dags, [ROOT / "ml"], output)
    except ReleaseError as error:
        raise OperatorError(f"{dags} can't be pushed: {error}") from error


@contextlib.contextmanager
def _as_in_the_image(folder: Path) -> Iterator[None]:
    """Start what is started here with the image's Python path instead of this checkout's."""
    for name in IN_THE_IMAGE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _findings(report: Report, release: Path, dags: Path) -> list[Finding]:
    found = []
    for error in report.errors:
        file, separator, text = error.partition(": ")
        if not separator or not (release / file).is_file():
            found.append(Finding(str(dags), None, error))
            continue
        # A frame in the bundle is where the user can mend it, be it a helper's and not the DAG file's own.
        frames = [
            (Path(frame["file"]).relative_to(release).as_posix(), int(frame["line"]))
            for frame in FRAME.finditer(text)
            if Path(frame["file"]).is_relative_to(release)
        ]
        where, line = frames[-1] if frames else (file, _line_of_dag(release / file, text))
        message = _message(text).replace(f"{release}/", "")
        if where != file:
            message += f" (imported by {_shown(file, dags)})"
        found.append(Finding(_shown(where, dags), line, message, _advice(message)))
    return found


def _message(text: str) -> str:
    """The error itself: what a traceback ends with after its last indented line."""
    lines = text.strip().splitlines()
    indented = [number for number, line in enumerate(lines) if line.startswith("  ")]
    return "\n".join(lines[indented[-1] + 1 :] if indented else lines) or lines[-1].strip()


def _line_of_dag(file: Path, text: str) -> int | None:
    """Where the DAG that an error without a traceback names (a cycle, a duplicate id) gets its id."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return None
    named = [
        (node.value, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value
        and re.search(rf"\b(?:DAG|Dag:) {re.escape(node.value)}(?![\w-])", text)
    ]
    # An id may begin with another one: `a.b` and `a`.
    longest = max((value for value, _ in named), key=len, default=None)
    return min((line for value, line in named if value == longest), default=None)


def _shown(path: str, dags: Path) -> str:
    """A path inside the release as it lies in the user's folders."""
    return path if path.startswith("ml/") and not (dags / path).exists() else str(dags / path)


def _advice(message: str) -> str | None:
    missing = MISSING_MODULE.search(message)
    if missing is None:
        return None
    return (
        f"'{missing['module']}' is not in the image: put the module beside the DAGs, or name its package in "
        f"docker/{IMAGE}/requirements.in, make the lock anew there ({LOCK_COMMAND}) and deploy"
    )

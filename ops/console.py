"""What a person sees: progress on standard error, the result on standard output, one line per mistake."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Environment = Annotated[
    str, typer.Option("--environment", "-e", help="The environment: a file in environments/.")
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")]


class OperatorError(Exception):
    """A mistake or a failure to tell the user about in plain words: what is wrong, and what to do."""


def say(text: str) -> None:
    """Print one line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Tell when a longer step starts, and how long it took when it succeeds."""
    started = time.monotonic()
    say(f"· {what} …")
    yield
    say(f"✓ {what}: {time.monotonic() - started:.1f} s")


_shown: list[bool] = []


def has_shown() -> bool:
    """Whether a result has been printed: with `--json` there is exactly one document."""
    return bool(_shown)


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a command's result: the document itself with `--json`, else its readable form."""
    _shown.append(True)
    print(json.dumps(result, indent=2, default=str) if as_json else text, flush=True)


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as aligned columns under a heading; an empty string for a missing value."""
    cells = [columns] + [[str(row.get(column, "") or "") for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )

"""One platform for all end-to-end tests: this checkout's own, stopped again when it was not running before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local import processes
from tests.end_to_end.platform import PATHS, updraft


@pytest.fixture(scope="session")
def demo() -> Iterator[dict[str, Any]]:
    """What `./updraft demo --json` answered; the platform runs until the last test has ended."""
    was_running = processes.is_running(PATHS, "account")
    ran = updraft("demo", "--json")
    try:
        assert ran.returncode == 0, ran.stderr[-3000:]
        yield json.loads(ran.stdout)
    finally:
        if not was_running:
            updraft("down")

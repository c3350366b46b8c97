"""Faults of the emulated account, on while a benchmark looks at what rests on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from local.faults import PATH
from ops.target import local_paths


@contextmanager
def faults(**on: Any) -> Iterator[None]:
    """Have these faults on meanwhile, and none afterwards; their names are those of `local.faults.Faults`."""
    _put(on)
    try:
        yield
    finally:
        no_faults()


def no_faults() -> None:
    """Switch every fault off."""
    _put({})


def _put(on: dict[str, Any]) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.put(f"{local_paths().endpoint_url}{PATH}", json=on, timeout=30).raise_for_status()

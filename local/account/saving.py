"""The account's state on disk, written every few seconds: one that is saved at a clean stop only is lost with a SIGKILL."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.core import persistence, responses  # type: ignore[import-untyped]

SAVE_SECONDS = 5
# A service whose state takes longer than this to save is left alone afterwards for so many times what it took.
LONG_SAVE_SECONDS, SAVE_PAUSE_FACTOR = 0.5, 50
# The account answers nobody while a piece is encoded; a log stream has tens of thousands of events.
PIECE_ITEMS = 500
# As deep as a log stream's events lie in the state of the logs.
PIECE_DEPTH = 7
ANSWER_SECONDS = 0.02

SCOPED = (responses.AccountRegionScopedDict, responses.AccountScopedDict)
_encode = json.JSONEncoder(default=persistence._json_default).encode


class StateSaver:
    """Saves every service's state in the emulator's own format, in small pieces between the account's answers."""

    def __init__(self, directory: Path, logger: logging.Logger) -> None:
        self._directory = directory
        self._logger = logger
        # When a service's state may be saved again, on the monotonic clock.
        self._due: dict[str, float] = {}

    async def run(self, also: Callable[[], None]) -> None:
        """Save until cancelled; `also` saves what the emulator does not know."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            for name, get_state in ministack_app._build_persistence_save_dict().items():
                try:
                    await self.save(name, get_state)
                except Exception:
                    self._logger.exception("%s was not saved; trying again in %s s", name, SAVE_SECONDS)
            try:
                also()
            except Exception:
                self._logger.exception("not all was saved; trying again in %s s", SAVE_SECONDS)

    async def save(self, name: str, get_state: Callable[[], Any]) -> None:
        """Save a service's state if it is due; the file is whole at any time."""
        started = time.monotonic()
        if started < self._due.get(name, 0.0) or (state := get_state()) is None:
            return
        path = self._directory / f"{name}.json"
        unfinished = path.with_suffix(".saving")
        try:
            with unfinished.open("w") as file:
                answered = time.monotonic()
                for piece in pieces(wrapped(name, state)):
                    file.write(piece)
                    if time.monotonic() - answered > ANSWER_SECONDS:
                        await asyncio.sleep(0)
                        answered = time.monotonic()
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        took = time.monotonic() - started
        if took > LONG_SAVE_SECONDS:
            self._due[name] = time.monotonic() + took * SAVE_PAUSE_FACTOR


def wrapped(name: str, state: Any) -> dict[str, Any]:
    """A service's state as the emulator's `load_state` expects it in a file."""
    return {"__ministack_format__": persistence._state_format_version(name), "payload": state}


def pieces(state: Any, depth: int = PIECE_DEPTH) -> Iterator[str]:
    """JSON of a state, piece by piece: none takes long to encode, and a state that changes meanwhile does no harm."""
    if isinstance(state, SCOPED):
        state = persistence._json_default(state)
    if isinstance(state, dict) and state and depth and all(isinstance(key, str) for key in state):
        before = "{"
        for key, value in list(state.items()):
            yield f"{before}{_encode(key)}: "
            yield from pieces(value, depth - 1)
            before = ", "
        yield "}"
    elif isinstance(state, list) and len(state) > PIECE_ITEMS:
        before = "["
        for start in range(0, len(state), PIECE_ITEMS):
            yield f"{before}{_encode(state[start : start + PIECE_ITEMS])[1:-1]}"
            before = ", "
        yield "]"
    else:
        yield _encode(state)

"""What the stand-ins know of the build that calls them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from local.account.principals import RoleCredentials
from local.paths import LocalPaths
from local.sagemaker.storage import Storage, client


class RefusedError(ValueError):
    """Words that the stand-in doesn't have."""


class Host:
    """A build's directory, and the account around it."""

    def __init__(self, directory: Path) -> None:
        spec = json.loads((directory / "build.json").read_text())
        self.directory = directory
        self.paths = LocalPaths(Path(spec["root"]), port=spec["port"])
        self.role = RoleCredentials(spec["build"]["serviceRole"], directory.name)

    @cached_property
    def storage(self) -> Storage:
        return Storage(self.paths, self.role)

    def client(self, service: str) -> Any:
        """A client of the account."""
        return client(self.paths, service, self.role)


def call(
    name: str, run: Callable[[Host, list[str]], None], *, refused_status: int, failed_status: int
) -> int:
    """Call a stand-in with its process's arguments, `BUILD_DIRECTORY ARGUMENT …`; returns its exit status."""
    host, arguments = Host(Path(sys.argv[1])), sys.argv[2:]
    try:
        run(host, arguments)
    except Exception as error:
        print(f"{name}: {error}", file=sys.stderr)
        return refused_status if isinstance(error, RefusedError) else failed_status
    return 0


def options(
    words: list[str], with_value: set[str], *, operands: int, flags: frozenset[str] = frozenset()
) -> tuple[dict[str, str], list[str]]:
    """Options by name, and operands; raises RefusedError for an unknown option or another number of operands."""
    found: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name in flags:
            found[name] = ""
        elif name in with_value:
            found[name] = value if equals else next(remaining, "")
        elif word.startswith("-"):
            raise RefusedError(f"option {word} is not available in a local build")
        else:
            rest.append(word)
    if len(rest) != operands:
        raise RefusedError(f"{operands} operands are needed, {len(rest)} came: {' '.join(rest)}")
    return found, rest

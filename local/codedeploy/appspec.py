"""Reads an AppSpec file for the EC2/on-premises platform.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

DEFAULT_TIMEOUT_SECONDS = 3600
SECTIONS = {"version", "os", "files", "hooks", "permissions", "file_exists_behavior"}


class AppSpecError(ValueError):
    """The revision's AppSpec file is missing or wrong."""


@dataclass(frozen=True)
class Script:
    """One hook script; `location` is relative to the revision's root."""

    location: str
    timeout_seconds: int


@dataclass(frozen=True)
class CopyRule:
    """One entry of `files:`; both as the file says them."""

    source: str
    destination: str


@dataclass(frozen=True)
class AppSpec:
    """`hooks` maps a lifecycle event to its scripts in order."""

    files: tuple[CopyRule, ...]
    hooks: dict[str, tuple[Script, ...]]


def read_appspec(revision: Path) -> AppSpec:
    """Read `appspec.yml` of an unpacked revision. Raises AppSpecError."""
    file = revision / "appspec.yml"
    if not file.is_file():
        raise AppSpecError(
            "The CodeDeploy agent did not find an AppSpec file within the unpacked revision directory at "
            f'revision-relative path "appspec.yml". The revision was unpacked to directory "{revision}".'
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AppSpecError(f"The AppSpec file is no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise AppSpecError("The AppSpec file holds no mapping")
    if unknown := sorted(map(str, content.keys() - SECTIONS)):
        raise AppSpecError(f"The AppSpec file has unknown sections: {', '.join(unknown)}")
    if content.get("permissions"):
        raise AppSpecError("The AppSpec file has permissions, which the local agent does not apply")
    if content.get("version") != 0.0:
        raise AppSpecError(f"The AppSpec file has version {content.get('version')!r}; 0.0 is allowed")
    if content.get("os") != "linux":
        raise AppSpecError(f"The AppSpec file has os {content.get('os')!r}; linux is allowed")
    hooks = content.get("hooks") or {}
    if not isinstance(hooks, dict):
        raise AppSpecError("The AppSpec file's hooks are no mapping of lifecycle events")
    return AppSpec(
        files=tuple(_copy_rule(entry) for entry in content.get("files") or ()),
        hooks={
            str(event): tuple(_script(event, it) for it in scripts or ()) for event, scripts in hooks.items()
        },
    )


def _copy_rule(entry: Any) -> CopyRule:
    if not isinstance(entry, dict) or entry.keys() != {"source", "destination"}:
        raise AppSpecError(f"files: {entry!r} must have source and destination")
    rule = CopyRule(source=str(entry["source"]), destination=str(entry["destination"]))
    if not rule.destination.startswith("/") or ".." in Path(rule.destination).parts:
        raise AppSpecError(f"files: destination {rule.destination!r} must be an absolute path without '..'")
    if ".." in Path(rule.source).parts:
        raise AppSpecError(f"files: source {rule.source!r} leaves the revision")
    return rule


def _script(event: str, entry: Any) -> Script:
    if not isinstance(entry, dict) or "location" not in entry:
        raise AppSpecError(f"hooks: {event}: {entry!r} has no location")
    if unknown := sorted(entry.keys() - {"location", "timeout", "runas"}):
        raise AppSpecError(f"hooks: {event}: unknown keys {', '.join(unknown)}")
    if entry.get("runas", "root") != "root":
        raise AppSpecError(f"hooks: {event}: runas {entry['runas']!r}: the local agent can't change its user")
    timeout = entry.get("timeout", DEFAULT_TIMEOUT_SECONDS)
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, int)
        or not 0 < timeout <= DEFAULT_TIMEOUT_SECONDS
    ):
        raise AppSpecError(
            f"hooks: {event}: timeout {timeout!r} must be 1 to {DEFAULT_TIMEOUT_SECONDS} seconds"
        )
    location = str(entry["location"])
    if location.startswith("/") or ".." in Path(location).parts:
        raise AppSpecError(f"hooks: {event}: location {location!r} must be relative to the revision's root")
    return Script(location=location, timeout_seconds=timeout)

"""A buildspec, checked: https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]

PHASES = ("install", "pre_build", "build", "post_build")
KNOWN = {"version", "env", "phases", "artifacts"}
KNOWN_IN_ENV = {"shell", "variables", "parameter-store", "secrets-manager", "exported-variables"}
KNOWN_IN_PHASE = {"commands", "finally", "on-failure"}
KNOWN_IN_ARTIFACTS = {"files", "base-directory", "name", "discard-paths"}


class BuildspecError(ValueError):
    """Every mistake of a buildspec."""


@dataclass(frozen=True)
class Phase:
    commands: list[str]
    finally_: list[str]
    on_failure: str | None


@dataclass(frozen=True)
class Buildspec:
    """`artifacts` is the section as it came; None where there is none."""

    shell: str
    variables: dict[str, str]
    parameters: dict[str, str]
    secrets: dict[str, str]
    exported: list[str]
    phases: dict[str, Phase] = field(default_factory=dict)
    artifacts: dict[str, Any] | None = None


def parse(text: str) -> Buildspec:
    """Read a buildspec; raises BuildspecError naming what is wrong or not available here."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BuildspecError(f"YAML_FILE_ERROR: {error}") from error
    if not isinstance(content, dict):
        raise BuildspecError("YAML_FILE_ERROR: a buildspec is a mapping with version and phases")
    mistakes = list(_mistakes(content))
    if mistakes:
        raise BuildspecError("YAML_FILE_ERROR: " + "; ".join(mistakes))
    environment = content.get("env") or {}
    return Buildspec(
        shell=environment.get("shell", "sh"),
        variables={name: str(value) for name, value in (environment.get("variables") or {}).items()},
        parameters=dict(environment.get("parameter-store") or {}),
        secrets=dict(environment.get("secrets-manager") or {}),
        exported=list(environment.get("exported-variables") or []),
        phases={name: _phase(phase or {}) for name, phase in content["phases"].items()},
        artifacts=content.get("artifacts"),
    )


def _phase(phase: dict[str, Any]) -> Phase:
    return Phase(list(phase.get("commands") or []), list(phase.get("finally") or []), phase.get("on-failure"))


def _mistakes(content: dict[str, Any]) -> Iterator[str]:
    if content.get("version") != 0.2:
        yield f"version: {content.get('version')} came; 0.2 is available in the local account"
    yield from _unknown("", content, KNOWN)
    environment = content.get("env") or {}
    yield from _unknown("env.", environment, KNOWN_IN_ENV)
    if environment.get("shell", "sh") not in ("sh", "bash"):
        yield f"env.shell: {environment['shell']} came; sh and bash are available"
    phases = content.get("phases")
    if not isinstance(phases, dict) or not phases:
        yield "phases: missing"
        return
    yield from _unknown("phases.", phases, set(PHASES))
    for name, phase in phases.items():
        if not isinstance(phase, dict):
            yield f"phases.{name}: commands are missing"
            continue
        yield from _unknown(f"phases.{name}.", phase, KNOWN_IN_PHASE)
        for key in ("commands", "finally"):
            commands = phase.get(key) or []
            if not isinstance(commands, list) or not all(isinstance(each, str) for each in commands):
                yield f"phases.{name}.{key}: a list of texts is needed"
        if phase.get("on-failure", "ABORT") not in ("ABORT", "CONTINUE"):
            yield f"phases.{name}.on-failure: {phase['on-failure']} came; ABORT and CONTINUE are available"
    yield from _unknown("artifacts.", content.get("artifacts") or {}, KNOWN_IN_ARTIFACTS)


def _unknown(place: str, section: dict[str, Any], known: set[str]) -> Iterator[str]:
    for name in sorted(set(map(str, section)) - known):
        yield f"{place}{name}: not available in the local account; it has {', '.join(sorted(known))}"

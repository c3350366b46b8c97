"""Synthesizes environments in this process, each once in a test session: about a second for each after the first."""

import atexit
import copy
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# jsii starts the first `node` on the path: that of the tools' environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import aws_cdk as cdk

import app as application
from stacks.config import ENVIRONMENTS, ROOT, parse_environment

Template = dict[str, Any]
Values = dict[str, Any]


def values_of(name: str) -> Values:
    """What a shipped environment's file says."""
    return tomllib.loads((ENVIRONMENTS / f"{name}.toml").read_text())


def changed(values: Values, **changes: Any) -> Values:
    """A copy with some sections merged in (`section={"key": value}`), replaced (`section__={…}`) or gone (`None`)."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        if key.endswith("__"):
            result[key.removesuffix("__")] = value
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = {**result.get(key, {}), **value}
        else:
            result[key] = value
    return result


def new_app(outdir: Path | None = None) -> cdk.App:
    """An app with the feature flags that every deployment has."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    return cdk.App(context=context, outdir=str(outdir or new_folder()))


def new_folder() -> Path:
    """A folder that lives as long as this process: what is cached refers to it."""
    folder = TemporaryDirectory(prefix="updraft-synth-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def synthesize(name: str, values: Values) -> dict[str, Template]:
    """The templates of one environment by the stack's short name. Raises ConfigError for values that are refused."""
    config = parse_environment(name, values)
    app = new_app()
    application.build(app, config)
    return {
        stack.stack_name.removeprefix(f"{config.prefix}-"): stack.template for stack in app.synth().stacks
    }


@cache
def templates(name: str) -> dict[str, Template]:
    """The templates of a shipped environment by the stack's short name."""
    return synthesize(name, values_of(name))


def resources(found: dict[str, Template], resource_type: str) -> Iterator[tuple[str, Template]]:
    """Logical id and resource of every resource of a type."""
    for template in found.values():
        for logical_id, resource in template.get("Resources", {}).items():
            if resource["Type"] == resource_type:
                yield logical_id, resource


def types(found: dict[str, Template]) -> dict[str, int]:
    """How many resources of each type there are."""
    counts: dict[str, int] = {}
    for template in found.values():
        for resource in template.get("Resources", {}).values():
            counts[resource["Type"]] = counts.get(resource["Type"], 0) + 1
    return counts

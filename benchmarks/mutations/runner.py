"""Applies mutations to synthesized environments and tells which check noticed each."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# jsii starts the first `node` on the path: that of the tools' environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import aws_cdk as cdk

import app as application
from benchmarks.mutations.draft import Draft, Mutation, Template
from stacks import aws_rules, rules
from stacks.aws_rules.templates import Templates
from stacks.config import ENVIRONMENTS, ROOT, ConfigError, parse_environment
from stacks.linting import lint


@dataclass(frozen=True)
class Outcome:
    """`caught_by`: the check and its finding; None for a mutation that went through."""

    mutation: Mutation
    caught_by: str | None


@dataclass(frozen=True)
class Base:
    """An environment without mistakes: its values, its templates, and what is waived in it."""

    values: Template
    templates: dict[str, Template]
    waived: frozenset[str]


def run(mutations: Iterable[Mutation]) -> Iterator[Outcome]:
    """Each mutation alone, on its own copy."""
    for mutation in mutations:
        base = _base(mutation.base)
        check = _of_templates if mutation.kind == "template" else _of_environment
        yield Outcome(mutation, check(mutation, base))


def values_of(name: str) -> Template:
    """`prod` as it is shipped, `separate`, which has every part as a service of its own, or that with `sqs`."""
    file = ENVIRONMENTS / "prod.toml" if name == "prod" else Path(__file__).with_name("environment.toml")
    values = tomllib.loads(file.read_text())
    if name == "sqs":
        values["broker"] = {"kind": "sqs"}
        del values["services"]["flower"]
    return values


@cache
def _base(name: str) -> Base:
    values = values_of(name)
    with tempfile.TemporaryDirectory(prefix="updraft-mutations-") as directory:
        violations = _synthesize(name, values, Path(directory))
        if violations:
            raise RuntimeError(f"{name} has findings before any mutation: {violations[0]}")
        templates = Templates.read(Path(directory))
    waived = frozenset(str(finding) for finding in aws_rules.check(templates))
    return Base(values, dict(templates.by_stack), waived)


def _synthesize(name: str, values: Template, directory: Path) -> list[str]:
    config = parse_environment(name, values)
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(context=context, outdir=str(directory))
    application.build(app, config)
    # CDK writes its warnings to standard output, where one document is expected.
    with contextlib.redirect_stdout(sys.stderr):
        app.synth()
    return [str(violation) for violation in rules.check(app, directory, hardened=config.hardened)]


def _of_environment(mutation: Mutation, base: Base) -> str | None:
    values: dict[str, Any] = copy.deepcopy(base.values)
    mutation.change(values)
    try:
        with tempfile.TemporaryDirectory(prefix="updraft-mutations-") as directory:
            violations = _synthesize(mutation.base, values, Path(directory))
    except ConfigError as error:
        return f"environment: {str(error).splitlines()[0]}"
    return f"rules: {violations[0]}" if violations else None


def _of_templates(mutation: Mutation, base: Base) -> str | None:
    changed = copy.deepcopy(base.templates)
    mutation.change(Draft(changed))
    for finding in aws_rules.check(Templates(changed)):
        if str(finding) not in base.waived:
            return f"rules: {finding}"
    with tempfile.TemporaryDirectory(prefix="updraft-mutations-") as directory:
        files = []
        for stack, template in changed.items():
            if template != base.templates[stack]:
                files.append(Path(directory) / f"{stack}.template.json")
                files[-1].write_text(json.dumps(template))
        if not files:
            raise RuntimeError(f"{mutation.name} changes nothing")
        found = lint(files, "us-east-1")
    return f"cfn-lint: {found[0]}" if found else None

"""What passes in an emulator and fails on AWS: rules over the synthesized templates, each a pure function.

A rule takes every template of an environment and yields findings. Where a limit is AWS's own, its source stands
beside it or in `quotas.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stacks.aws_rules import containers, data, functions, grants, iam, network, quotas
from stacks.aws_rules.templates import Finding, Templates

Rule = Callable[[Templates], Iterator[Finding]]

RULES: tuple[Rule, ...] = tuple(
    rule for theme in (iam, grants, network, containers, data, functions, quotas) for rule in theme.RULES
)


def check(templates: Templates) -> list[Finding]:
    """Every finding of every rule."""
    return [finding for rule in RULES for finding in rule(templates)]

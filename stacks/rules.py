"""Everything that an environment's synthesized stacks are held against: cdk-nag's packs, and our own rules.

A finding can be waived only beside its resource (`stacks/waivers.py`), and a waiver that waives nothing is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import cdk_nag

from stacks import aws_rules
from stacks.aws_rules.templates import Finding, Templates
from stacks.waivers import METADATA_TYPE

# How rules of checkov are named; stacks/scanning.py holds their waivers against what it finds.
CHECKOV = "CKV"


@dataclass(frozen=True)
class Waiver:
    """`path` is the construct's, as in a finding."""

    path: str
    rule: str
    reason: str

    def covers(self, path: str, rule: str) -> bool:
        return self.path == path and self.rule in (rule, rule.split("[")[0])


@dataclass(frozen=True)
class Violation:
    """A finding that nothing waives; `path` is the construct's."""

    path: str
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.path}: {self.what}"


def check(app: cdk.App, assembly: Path, *, hardened: bool) -> list[Violation]:
    """Hold a synthesized app and its assembly's folder against every rule; what nothing waives comes back.

    `hardened` adds NIST 800-53 R5 to AwsSolutions. cfn-lint is slower than all of this and runs beside it.
    """
    packs: list[cdk_nag.NagPack] = [cdk_nag.AwsSolutionsChecks()]
    if hardened:
        packs.append(cdk_nag.NIST80053R5Checks())
    found = [violation for pack in packs for violation in _of_pack(pack, app)]
    found += of_own_rules(assembly)
    return list(unwaived(found, list(waivers(assembly)), hardened=hardened))


def of_own_rules(assembly: Path) -> list[Violation]:
    """What `stacks/aws_rules` finds, by construct path."""
    paths = construct_paths(assembly)
    return [
        Violation(paths.get((finding.stack, finding.resource), finding.stack), finding.rule, _told(finding))
        for finding in aws_rules.check(Templates.read(assembly))
    ]


def unwaived(
    found: Iterable[Violation], waived: Iterable[Waiver], *, hardened: bool = True
) -> Iterator[Violation]:
    """Findings without a waiver, then waivers without a finding."""
    waived = list(waived)
    used: set[Waiver] = set()
    for violation in found:
        covering = [waiver for waiver in waived if waiver.covers(violation.path, violation.rule)]
        used.update(covering)
        if not covering:
            yield violation
    for waiver in waived:
        # Beside a resource of every environment stands also what only a hardened one is asked, or checkov asks.
        elsewhere = waiver.rule.startswith(CHECKOV) or (not hardened and waiver.rule.startswith("NIST"))
        if waiver not in used and not elsewhere:
            yield Violation(
                waiver.path, waiver.rule, "is waived, but nothing is found here: remove the waiver"
            )


def waivers(assembly: Path) -> Iterator[Waiver]:
    """Every waiver of an assembly, in the order of the stacks."""
    for path, entry in _metadata(assembly):
        if entry["type"] == METADATA_TYPE:
            yield Waiver(path, entry["data"]["rule"], entry["data"]["reason"])


def _of_pack(pack: cdk_nag.NagPack, app: cdk.App) -> Iterator[Violation]:
    for violation in pack.validate_scope(app).violations:
        for resource in violation.violating_resources:
            path = resource.construct_path
            yield Violation(str(path), violation.rule_name, violation.description)


def _told(finding: Finding) -> str:
    return f"{finding.what}. {finding.todo}"


def construct_paths(assembly: Path) -> dict[tuple[str, str], str]:
    """Where each resource of an assembly stands, by stack and logical id."""
    return {
        (path.split("/")[0], str(entry["data"])): path
        for path, entry in _metadata(assembly)
        if entry["type"] == "aws:cdk:logicalId"
    }


def _metadata(assembly: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(assembly.glob("*.metadata.json")):
        for path, entries in json.loads(file.read_text()).items():
            for entry in entries:
                yield path.lstrip("/"), entry

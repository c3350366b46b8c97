"""docs/security.md: what is waived and why, where AWS has no narrower resource, and what each role may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stacks import rules
from stacks.aws_rules.statements import ROLE, statements
from stacks.aws_rules.templates import Resource, Templates, as_list
from stacks.linting import IGNORED
from stacks.scanning import SKIPPED

HEAD = """\
# Security

Made by `./updraft security-doc` from the synthesized stacks; a test holds that it is current. Every environment is held against cdk-nag's AwsSolutions, a hardened one (`hardened = true`, as prod) against NIST 800-53 R5 too, and all against cfn-lint and the rules in `stacks/aws_rules/`: what fails on AWS although an emulator takes it; `./updraft synth --strict` adds checkov, which counts a waiver of what cdk-nag asks as well. A finding fails the synthesis unless it is waived beside its resource; a waiver that waives nothing fails it as well.
"""


def render(assemblies: dict[str, Path]) -> str:
    """The page, from the cloud assemblies of environments by name; the roles are those of the last one."""
    parts = [HEAD, "## Waivers\n", *_waivers(assemblies)]
    parts += ["\n## Ignored by cfn-lint\n", "| check | why |\n|---|---|"]
    parts += [f"| {check} | {reason} |" for check, reason in sorted(IGNORED.items())]
    parts += ["\n## Not asked of checkov\n", "| check | why |\n|---|---|"]
    parts += [f"| {check} | {reason} |" for check, reason in sorted(SKIPPED.items())]
    name, assembly = list(assemblies.items())[-1]
    templates = Templates.read(assembly)
    parts += ["\n## Every resource, for want of a narrower one\n", *_wildcards(templates, name)]
    parts += [f"\n## What each role may do ({name})\n", *_roles(templates, name)]
    return "\n".join(parts) + "\n"


def _waivers(assemblies: dict[str, Path]) -> Iterator[str]:
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, assembly in assemblies.items():
        for waiver in rules.waivers(assembly):
            if waiver.rule.startswith("NIST") and name != list(assemblies)[-1]:
                continue
            resource = re.sub(rf"^\w+-{name}-", "", waiver.path).removesuffix("/Resource")
            found.setdefault((waiver.rule, waiver.reason), {}).setdefault(resource, []).append(name)
    yield "| rule | reason | resources |\n|---|---|---|"
    for (rule, reason), resources in sorted(found.items()):
        listed = [
            f"`{resource}`" + ("" if len(names) == len(assemblies) else f" ({', '.join(names)})")
            for resource, names in resources.items()
        ]
        yield f"| `{rule}` | {reason} | {', '.join(listed)} |"


def _wildcards(templates: Templates, name: str) -> Iterator[str]:
    yield "| role | actions | condition |\n|---|---|---|"
    rows = {
        (
            ", ".join(_named(role, name) for role in statement.roles),
            ", ".join(f"`{action}`" for action in statement.actions),
            ", ".join(f"`{key}`" for test in statement.body.get("Condition", {}).values() for key in test),
        )
        for statement in statements(templates)
        if "*" in statement.resources
    }
    for row in sorted(rows):
        yield f"| {' | '.join(row)} |"


def _roles(templates: Templates, name: str) -> Iterator[str]:
    for role in sorted(templates.of(ROLE), key=lambda role: _named(role, name)):
        trusted = [
            str(service)
            for statement in as_list(role.properties["AssumeRolePolicyDocument"]["Statement"])
            for service in as_list(statement["Principal"]["Service"])
        ]
        yield f"### {_named(role, name)}\n\nAssumed by {', '.join(trusted)}.\n"
        for arn in as_list(role.properties.get("ManagedPolicyArns")):
            yield f"- AWS's policy `{templates.text(role.stack, arn).split(':aws:policy/')[-1]}`"
        for statement in statements(templates):
            if role in statement.roles:
                actions = ", ".join(f"`{action}`" for action in statement.actions)
                resources = [
                    _shortened(templates.text(statement.policy.stack, item), name)
                    for item in statement.resources
                ]
                yield f"- {actions} on {', '.join(f'`{item}`' for item in resources)}"
        yield ""


def _named(resource: Resource, name: str) -> str:
    return _shortened(f"<{resource.stack}/{resource.id}.Ref>", name)


def _shortened(text: str, name: str) -> str:
    """References without the stack's prefix and the hash of the logical id."""
    return re.sub(rf"<\w+-{name}-([\w-]+)/(\w+?)(?:[0-9A-F]{{8}})?\.\w+>", r"\1/\2", text)

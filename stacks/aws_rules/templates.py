"""Synthesized templates as the rules read them: resources of every stack, and what a reference leads to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Template = dict[str, Any]
SUFFIX = ".template.json"


@dataclass(frozen=True)
class Finding:
    """What is wrong at one resource (logical id; empty: the whole stack), and what to do."""

    rule: str
    stack: str
    resource: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.stack}/{self.resource}: {self.what}. {self.todo}"


@dataclass(frozen=True, eq=False)
class Resource:
    """One resource of one stack's template."""

    stack: str
    id: str
    body: Mapping[str, Any]

    @property
    def type(self) -> str:
        return str(self.body["Type"])

    @property
    def properties(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.body.get("Properties", {})
        return found

    def finding(self, rule: str, what: str, todo: str) -> Finding:
        return Finding(rule, self.stack, self.id, what, todo)


class Templates:
    """The templates of one environment by the full stack name; `region` is the environment's."""

    def __init__(self, templates: Mapping[str, Template]) -> None:
        self.by_stack = templates
        self._resources = {
            (stack, logical_id): Resource(stack, logical_id, body)
            for stack, template in templates.items()
            for logical_id, body in template.get("Resources", {}).items()
        }
        self._exports = {
            output["Export"]["Name"]: (stack, output["Value"])
            for stack, template in templates.items()
            for output in template.get("Outputs", {}).values()
            if isinstance(output.get("Export", {}).get("Name"), str)
        }

    @classmethod
    def read(cls, assembly: Path) -> Templates:
        """The templates of a cloud assembly's folder."""
        return cls(
            {
                path.name.removesuffix(SUFFIX): json.loads(path.read_text())
                for path in sorted(assembly.glob(f"*{SUFFIX}"))
            }
        )

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def of(self, *types: str) -> list[Resource]:
        """Every resource of the given CloudFormation types."""
        return [resource for resource in self if resource.type in types]

    def target(self, stack: str, value: Any) -> Resource | None:
        """The resource that a `Ref`, `Fn::GetAtt` or `Fn::ImportValue` leads to; None for anything else."""
        if not isinstance(value, dict) or len(value) != 1:
            return None
        [(function, argument)] = value.items()
        if function == "Ref" and isinstance(argument, str):
            return self._resources.get((stack, argument))
        if function == "Fn::GetAtt":
            name = argument[0] if isinstance(argument, list) else str(argument).split(".")[0]
            return self._resources.get((stack, name))
        if function == "Fn::ImportValue" and isinstance(argument, str) and argument in self._exports:
            return self.target(*self._exports[argument])
        return None

    def targets(self, stack: str, value: Any) -> Iterator[Resource]:
        """Every resource that is referred to anywhere inside a value."""
        found = self.target(stack, value)
        if found is not None:
            yield found
        elif isinstance(value, dict):
            for item in value.values():
                yield from self.targets(stack, item)
        elif isinstance(value, list):
            for item in value:
                yield from self.targets(stack, item)

    def referred(self, text: str) -> Resource | None:
        """The resource with whose reference a `text` begins."""
        match = re.match(r"<([^/>]+)/([^.>]+)\.", text)
        return self._resources.get((match[1], match[2])) if match else None

    def text(self, stack: str, value: Any) -> str:
        """A value as one string; a reference becomes `<stack/LogicalId.Attribute>`, a pseudo parameter its name."""
        if isinstance(value, str):
            return value
        if not isinstance(value, dict) or len(value) != 1:
            return json.dumps(value, sort_keys=True)
        [(function, argument)] = value.items()
        if function == "Fn::Join":
            separator, parts = argument
            if isinstance(parts, list):
                return str(separator).join(self.text(stack, part) for part in parts)
        if function == "Fn::Sub" and isinstance(argument, str):
            return argument
        if function == "Fn::ImportValue" and argument in self._exports:
            return self.text(*self._exports[argument])
        if function == "Ref" and str(argument).startswith("AWS::"):
            return f"${{{argument}}}"
        found = self.target(stack, value)
        if found is not None:
            attribute = argument[1] if function == "Fn::GetAtt" and isinstance(argument, list) else "Ref"
            return f"<{found.stack}/{found.id}.{attribute}>"
        return json.dumps(value, sort_keys=True)


def as_list(value: Any) -> list[Any]:
    """IAM's and CloudFormation's "one or several" as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def is_true(value: Any) -> bool:
    """CloudFormation takes booleans and their spelling."""
    return value is True or str(value).lower() == "true"


def short(stack: str) -> str:
    """`network` of `updraft-prod-network`."""
    return re.sub(r"^.*-", "", stack)

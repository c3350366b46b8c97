"""A set of templates that a mutation may change, and the register of mutations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Template = dict[str, Any]


class Draft:
    """The templates of one environment by full stack name; found resources are changed in place."""

    def __init__(self, templates: dict[str, Template]) -> None:
        self.templates = templates

    def body(self, resource_type: str, part_of_id: str = "") -> Template:
        """The first resource of a type whose logical id matches a pattern."""
        for template in self.templates.values():
            for logical_id, body in template["Resources"].items():
                if body["Type"] == resource_type and re.search(part_of_id, logical_id):
                    return dict_of(body)
        raise LookupError(
            f"no {resource_type} with {part_of_id!r} in its id: the mutation has lost its target"
        )

    def properties(self, resource_type: str, part_of_id: str = "") -> Template:
        """Its properties."""
        return dict_of(self.body(resource_type, part_of_id)["Properties"])

    def container(self, part_of_id: str) -> Template:
        """The first container of a task definition."""
        definition = self.properties("AWS::ECS::TaskDefinition", part_of_id)
        return dict_of(definition["ContainerDefinitions"][0])

    def statements(self, part_of_id: str) -> list[Template]:
        """The statements of a role's policy."""
        for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            try:
                found = self.properties(kind, part_of_id)["PolicyDocument"]["Statement"]
            except LookupError:
                continue
            assert isinstance(found, list)
            return found
        raise LookupError(f"no policy with {part_of_id!r} in its id: the mutation has lost its target")

    def statement(self, part_of_id: str, action: str) -> Template:
        """The statement of a role's policy that allows an action."""
        for statement in self.statements(part_of_id):
            actions = statement["Action"]
            if action in ([actions] if isinstance(actions, str) else actions):
                return statement
        raise LookupError(f"{part_of_id}: nothing allows {action}: the mutation has lost its target")

    def add(self, stack: str, logical_id: str, resource_type: str, properties: Template) -> None:
        """A further resource in the stack of that short name."""
        for name, template in self.templates.items():
            if name.endswith(f"-{stack}"):
                template["Resources"][logical_id] = {"Type": resource_type, "Properties": properties}
                return
        raise LookupError(f"no stack {stack}")

    def remove(self, resource_type: str, part_of_id: str) -> None:
        """Take a resource out."""
        gone = self.body(resource_type, part_of_id)
        for template in self.templates.values():
            for logical_id in [key for key, body in template["Resources"].items() if body is gone]:
                del template["Resources"][logical_id]

    def import_public_subnet(self) -> Template:
        """How another stack names the first public subnet."""
        return self.import_from_network("AWS::EC2::Subnet", "VpcpublicSubnet1Subnet")

    def import_from_network(self, resource_type: str, start_of_id: str) -> Template:
        """How another stack names a resource of the network, which exports it now."""
        [name] = [name for name in self.templates if name.endswith("-network")]
        [found] = [
            key
            for key, body in self.templates[name]["Resources"].items()
            if body["Type"] == resource_type and key.startswith(start_of_id)
        ]
        export = {"Value": {"Ref": found}, "Export": {"Name": f"{name}:{found}"}}
        self.templates[name].setdefault("Outputs", {})[f"Export{found}"] = export
        return {"Fn::ImportValue": f"{name}:{found}"}


def dict_of(value: Any) -> Template:
    """A JSON object, or a mutation that has lost its target."""
    assert isinstance(value, dict)
    return value


@dataclass(frozen=True)
class Mutation:
    """`change` alters templates (`Draft`) or, with `kind` "environment", the values of an environment's file."""

    name: str
    fails: str
    base: str
    kind: str
    change: Callable[[Any], None]


MUTATIONS: list[Mutation] = []


def template(
    name: str, fails: str, base: str = "separate"
) -> Callable[[Callable[[Draft], None]], Callable[[Draft], None]]:
    """Register a change of the synthesized templates, and what fails on AWS with it."""

    def register(change: Callable[[Draft], None]) -> Callable[[Draft], None]:
        MUTATIONS.append(Mutation(name, fails, base, "template", change))
        return change

    return register


def environment(
    name: str, fails: str, base: str = "separate"
) -> Callable[[Callable[[Template], None]], Callable[[Template], None]]:
    """Register a change of an environment's file, and what fails on AWS with it."""

    def register(change: Callable[[Template], None]) -> Callable[[Template], None]:
        MUTATIONS.append(Mutation(name, fails, base, "environment", change))
        return change

    return register

"""What policies allow to whom, as the rules read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stacks.aws_rules.templates import Resource, Templates, as_list

POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
ROLE = "AWS::IAM::Role"


@dataclass(frozen=True, eq=False)
class Statement:
    """One `Allow` statement of a policy, and the roles that have it."""

    policy: Resource
    roles: tuple[Resource, ...]
    body: dict[str, Any]

    @property
    def actions(self) -> list[str]:
        return [str(action) for action in as_list(self.body.get("Action"))]

    @property
    def resources(self) -> list[Any]:
        return as_list(self.body.get("Resource"))


@lru_cache(maxsize=1)
def statements(templates: Templates) -> tuple[Statement, ...]:
    """Every `Allow` statement of every identity policy, inline ones of roles too."""
    return tuple(_statements(templates))


def _statements(templates: Templates) -> Iterator[Statement]:
    for policy in templates.of(*POLICIES, ROLE):
        inline = policy.type == ROLE
        roles = (
            (policy,)
            if inline
            else tuple(
                role
                for value in as_list(policy.properties.get("Roles"))
                if (role := templates.target(policy.stack, value)) is not None
            )
        )
        documents = (
            [item["PolicyDocument"] for item in as_list(policy.properties.get("Policies"))]
            if inline
            else [policy.properties["PolicyDocument"]]
        )
        for document in documents:
            for body in as_list(document["Statement"]):
                if body["Effect"] == "Allow":
                    yield Statement(policy, roles, body)


def allowed(templates: Templates, role: Resource, action: str) -> list[tuple[str, Statement]]:
    """The resources (as text) on which a role may do something, each with its statement."""
    return [
        (templates.text(statement.policy.stack, resource), statement)
        for statement in statements(templates)
        if role in statement.roles and action in statement.actions
        for resource in statement.resources
    ]

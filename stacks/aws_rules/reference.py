"""Actions and the resources that they take: AWS's service authorization reference, in the form that cfn-lint carries.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _services() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json").read_text()
    )
    return found


def is_action(action: str) -> bool:
    """Whether AWS knows an action; without regard to case, as IAM reads it."""
    service, _, operation = action.partition(":")
    return operation.lower() in _services().get(service.lower(), {}).get("Actions", {})


def takes_resource(action: str) -> bool:
    """Whether a grant of an action may name a resource; one that takes none is granted on `*` or not at all."""
    return bool(_resource_types(action))


def resource_kinds(action: str) -> frozenset[str]:
    """The names of the resource types that an action takes, such as `bucket`."""
    return frozenset(_resource_types(action))


@cache
def resource_patterns(action: str) -> tuple[str, ...]:
    """The forms of the ARNs that an action takes, with `*` for each part that is free."""
    service = action.partition(":")[0].lower()
    # The types' names differ in case between the two lists.
    known = {name.lower(): body for name, body in _services().get(service, {}).get("Resources", {}).items()}
    formats = [
        text for name in _resource_types(action) for text in known.get(name.lower(), {}).get("ARNFormats", [])
    ]
    return tuple(re.sub(r"\$\{[^}]*\}", "*", text).replace(".*", "*") for text in formats)


def can_apply(action: str, resource: str) -> bool:
    """Whether a grant of an action on an ARN, with `*` for any text, can be what a request needs."""
    if resource == "*":
        return True
    patterns = resource_patterns(action)
    return fits_in_bucket(action, resource) and (
        not patterns or any(same_arn(resource, pattern) for pattern in patterns)
    )


def fits_in_bucket(action: str, resource: str) -> bool:
    """S3's actions are on a bucket or on its objects: a grant of the one on the other never applies."""
    if not action.startswith("s3:"):
        return True
    kinds = resource_kinds(action)
    has_key = "/" in re.sub(r"<[^>]*>", "", resource)
    return (
        ("object" in kinds and has_key)
        or ("bucket" in kinds and not has_key)
        or not {"object", "bucket"} & kinds
    )


def same_arn(one: str, other: str) -> bool:
    """Whether two patterns of ARNs have an ARN in common; a free part ends at its colon."""
    parts = one.split(":", 5), other.split(":", 5)
    return len(parts[0]) == len(parts[1]) and all(_overlap(a, b) for a, b in zip(*parts, strict=True))


def _overlap(one: str, other: str) -> bool:
    """Whether some text matches both patterns, each with `*` for any text."""

    @cache
    def from_here(i: int, j: int) -> bool:
        if i == len(one) and j == len(other):
            return True
        if i < len(one) and one[i] == "*":
            return from_here(i + 1, j) or (j < len(other) and from_here(i, j + 1))
        if j < len(other) and other[j] == "*":
            return from_here(i, j + 1) or (i < len(one) and from_here(i + 1, j))
        return i < len(one) and j < len(other) and one[i] == other[j] and from_here(i + 1, j + 1)

    return from_here(0, 0)


def _resource_types(action: str) -> list[str]:
    service, _, operation = action.partition(":")
    actions = _services().get(service.lower(), {}).get("Actions", {})
    found: list[str] = actions.get(operation.lower(), {}).get("Resources", [])
    return found

"""Turns CloudFormation properties into API parameters, held against botocore's model of the call."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.validate import ParamValidator


class InvalidPropertiesError(ValueError):
    """Properties that the service's API would not take."""


def to_api(
    service: str, operation: str, props: dict[str, Any], *, ignore: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return `props` as parameters of an operation, names and types as its model has them.

    CloudFormation capitalizes names and passes numbers and booleans as text at times; both are set right by the
    model. Raises InvalidPropertiesError naming every property that the call doesn't know or can't take.
    """
    shape = _operation(service, operation)
    kept = {name: value for name, value in props.items() if name not in ignore}
    unknown: list[str] = []
    converted = _convert(shape, kept, "", unknown)
    report = ParamValidator().validate(converted, shape)
    mistakes = [f"unknown property {name}" for name in unknown]
    if report.has_errors():
        mistakes.append(report.generate_report())
    if mistakes:
        raise InvalidPropertiesError(f"{operation}: " + "; ".join(mistakes))
    return converted  # type: ignore[no-any-return]


@cache
def _operation(service: str, operation: str) -> StructureShape:
    model = botocore.session.get_session().get_service_model(service)
    return model.operation_model(operation).input_shape


def _convert(shape: Shape, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = {name[0].upper() + name[1:]: name for name in shape.members}
        result = {}
        for name, item in value.items():
            member = members.get(name[0].upper() + name[1:])
            if member is None:
                unknown.append(f"{path}{name}")
                continue
            result[member] = _convert(shape.members[member], item, f"{path}{name}.", unknown)
        return result
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_convert(shape.member, item, path, unknown) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _convert(shape.value, item, path, unknown) for key, item in value.items()}
    return _scalar(shape, value)


def _scalar(shape: Shape, value: Any) -> Any:
    if shape.type_name in ("integer", "long") and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if shape.type_name == "boolean" and value in ("true", "false"):
        return value == "true"
    if shape.type_name == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value

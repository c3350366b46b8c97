"""What a deployment takes away although another stack imports it, which CloudFormation refuses.

CDK deploys a stack that exports before those that import, so that whatever is switched off in an environment (a queue,
Flower, the warehouse) would fail there for ever. The stacks that import go first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ops.console import OperatorError

TEMPLATE = ".template.json"


def importers_of_removed(cloudformation: Any, assembly: Path, prefix: str) -> list[str]:
    """The deployed stacks that import what a cloud assembly no longer exports: deploy them first, exclusively.

    Raises OperatorError for those that the assembly no longer has: they have to be deleted before.
    """
    templates = {path.name.removesuffix(TEMPLATE): path for path in assembly.glob(f"{prefix}-*{TEMPLATE}")}
    kept = {name for path in templates.values() for name in _exported(path)}
    removed = set(_deployed_exports(cloudformation, prefix)) - kept
    importers = {stack for name in sorted(removed) for stack in _importers(cloudformation, name)}
    if gone := sorted(importers - templates.keys()):
        commands = "\n".join(f"  aws cloudformation delete-stack --stack-name {name}" for name in gone)
        raise OperatorError(
            f"{', '.join(gone)}: no longer part of the environment, but still there, and in the way of what is "
            "removed with it. What the stack protects has to be saved before; then delete it, wait for its end, and "
            f"deploy again:\n{commands}"
        )
    return sorted(importers)


def _exported(template: Path) -> Iterator[str]:
    for output in json.loads(template.read_text()).get("Outputs", {}).values():
        if "Export" in output:
            yield str(output["Export"]["Name"])


def _deployed_exports(cloudformation: Any, prefix: str) -> Iterator[str]:
    for page in cloudformation.get_paginator("list_exports").paginate():
        for export in page["Exports"]:
            # arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID
            if export["ExportingStackId"].split("/")[1].startswith(f"{prefix}-"):
                yield export["Name"]


def _importers(cloudformation: Any, export: str) -> list[str]:
    pages = cloudformation.get_paginator("list_imports").paginate(ExportName=export)
    try:
        return [name for page in pages for name in page["Imports"]]
    except ClientError as error:
        # So CloudFormation answers for an export that nobody imports.
        if "is not imported by any stack" in str(error):
            return []
        raise

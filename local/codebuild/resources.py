"""CloudFormation's AWS::CodeBuild::Project, through the service's own operations."""

from __future__ import annotations

import secrets
from typing import Any

from local.account.resources.shapes import to_api
from local.codebuild.service import CodeBuildService

Props = dict[str, Any]
PROJECT = "AWS::CodeBuild::Project"


class CodeBuildResources:
    """The type's handlers, in the shapes that the account's CloudFormation calls."""

    def __init__(self, service: CodeBuildService) -> None:
        self._service = service

    def create(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Props]:
        """CreateProject; `Ref` is the name."""
        name = props.get("Name") or f"{stack_name}-{logical_id}-{secrets.token_hex(6)}"
        request = to_api("codebuild", "CreateProject", _with_api_names(props) | {"Name": name})
        project = self._service.call("CreateProject", request)["project"]
        return name, {"Arn": project["arn"]}

    def update(
        self, physical_id: str, _old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """UpdateProject; another name is another project."""
        if new.get("Name", physical_id) != physical_id:
            return self.create(logical_id or physical_id, new, stack_name)
        request = to_api("codebuild", "UpdateProject", _with_api_names(new) | {"Name": physical_id})
        project = self._service.call("UpdateProject", request)["project"]
        return physical_id, {"Arn": project["arn"]}

    def delete(self, physical_id: str, _props: Props) -> None:
        """DeleteProject."""
        self._service.call("DeleteProject", {"name": physical_id})


def _with_api_names(props: Props) -> Props:
    """CloudFormation spells this member of a source otherwise than the API does."""
    source = props.get("Source", {})
    renamed = {"buildspec" if name == "BuildSpec" else name: value for name, value in source.items()}
    return {**props, "Source": renamed} if source else dict(props)

"""CloudFormation's AWS::CodeDeploy::Application and AWS::CodeDeploy::DeploymentGroup."""

from __future__ import annotations

import secrets
from typing import Any

from local.codedeploy.service import CodeDeployService, ServiceError

Props = dict[str, Any]
Attributes = dict[str, Any]

APPLICATION = "AWS::CodeDeploy::Application"
GROUP = "AWS::CodeDeploy::DeploymentGroup"
GROUP_PROPERTIES = {
    "ApplicationName",
    "AutoRollbackConfiguration",
    "DeploymentConfigName",
    "DeploymentGroupName",
    "DeploymentStyle",
    "Ec2TagFilters",
    "Ec2TagSet",
    "OutdatedInstancesStrategy",
    "ServiceRoleArn",
    "Tags",
}


class CodeDeployResources:
    """Handlers of both types, in the shapes that the account's CloudFormation calls."""

    def __init__(self, service: CodeDeployService) -> None:
        self._service = service

    def create_application(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Attributes]:
        """Create the application; its name is the physical id."""
        _refuse_unknown(APPLICATION, props, {"ApplicationName", "ComputePlatform", "Tags"})
        name = props.get("ApplicationName") or _name(stack_name, logical_id)
        asked = {"applicationName": name, "computePlatform": props.get("ComputePlatform", "Server")}
        self._service.call("CreateApplication", asked)
        return name, {}

    def update_application(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Attributes]:
        """Replace the application when its name or platform changes."""
        _refuse_unknown(APPLICATION, new, {"ApplicationName", "ComputePlatform", "Tags"})
        names = ("ApplicationName", "ComputePlatform")
        if any(old.get(name) != new.get(name) for name in names):
            return self.create_application(logical_id or physical_id, new, stack_name)
        return physical_id, {}

    def delete_application(self, physical_id: str, _props: Props) -> None:
        """Delete the application with its groups."""
        self._service.call("DeleteApplication", {"applicationName": physical_id})

    def create_group(self, logical_id: str, props: Props, stack_name: str) -> tuple[str, Attributes]:
        """Create the deployment group; its name is the physical id."""
        name = props.get("DeploymentGroupName") or _name(stack_name, logical_id)
        self._service.call("CreateDeploymentGroup", _group_input(props) | {"deploymentGroupName": name})
        return name, {}

    def update_group(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Attributes]:
        """Update in place; another application or another name makes a new group."""
        names = ("ApplicationName", "DeploymentGroupName")
        if any(old.get(name) != new.get(name) for name in names):
            return self.create_group(logical_id or physical_id, new, stack_name)
        self._service.call(
            "UpdateDeploymentGroup", _group_input(new) | {"currentDeploymentGroupName": physical_id}
        )
        return physical_id, {}

    def delete_group(self, physical_id: str, props: Props) -> None:
        """Delete the deployment group."""
        self._service.call(
            "DeleteDeploymentGroup",
            {"applicationName": props["ApplicationName"], "deploymentGroupName": physical_id},
        )


def _group_input(props: Props) -> Props:
    _refuse_unknown(GROUP, props, GROUP_PROPERTIES)
    asked = {
        _lower(name): props[name]
        for name in ("ApplicationName", "ServiceRoleArn", "DeploymentConfigName", "OutdatedInstancesStrategy")
        if name in props
    }
    if "Ec2TagFilters" in props:
        asked["ec2TagFilters"] = props["Ec2TagFilters"]
    if "Ec2TagSet" in props:
        groups = props["Ec2TagSet"].get("Ec2TagSetList", [])
        asked["ec2TagSet"] = {"ec2TagSetList": [group["Ec2TagGroup"] for group in groups]}
    for name in ("AutoRollbackConfiguration", "DeploymentStyle"):
        if name in props:
            asked[_lower(name)] = {_lower(key): value for key, value in props[name].items()}
    rollback = asked.get("autoRollbackConfiguration", {})
    if isinstance(rollback.get("enabled"), str):
        rollback["enabled"] = rollback["enabled"] == "true"
    return asked


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _name(stack_name: str, logical_id: str) -> str:
    return f"{stack_name}-{logical_id}-{secrets.token_hex(6).upper()}"[-100:]


def _refuse_unknown(resource_type: str, props: Props, known: set[str]) -> None:
    if unknown := sorted(props.keys() - known):
        raise ServiceError(
            "InvalidInputException",
            f"{resource_type}: {', '.join(unknown)} not emulated; {', '.join(sorted(known))} are",
        )

"""The CodeDeploy API (JSON 1.1) for EC2 deployments from S3.

Inputs are checked against botocore's model of the service; what the model knows and this service doesn't
carry out is refused instead of ignored.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from local.codedeploy.dispatcher import Dispatcher
from local.codedeploy.store import FINAL_STATES, Item, Store, now

Response = tuple[int, dict[str, str], bytes]
TARGET_PREFIX = "CodeDeploy_20141006"
NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,100}")
CONFIGURATIONS = tuple(f"CodeDeployDefault.{name}" for name in ("OneAtATime", "HalfAtATime", "AllAtOnce"))
DEFAULT_CONFIGURATION = "CodeDeployDefault.OneAtATime"
GROUP_MEMBERS = (
    "ec2TagFilters",
    "ec2TagSet",
    "serviceRoleArn",
    "deploymentConfigName",
    "autoRollbackConfiguration",
    "deploymentStyle",
    "outdatedInstancesStrategy",
)
IN_PLACE = {"deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"}


class ServiceError(Exception):
    """An error of the API, by its code in the service's model."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CodeDeployService:
    """Answers API calls; `call` is also the way in for CloudFormation."""

    def __init__(self, *, store: Store, dispatcher: Dispatcher) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._model = botocore.session.get_session().get_service_model("codedeploy")
        self._operations: dict[str, Callable[[Item], Item]] = {
            "CreateApplication": self._create_application,
            "GetApplication": self._get_application,
            "BatchGetApplications": self._batch_get_applications,
            "ListApplications": self._list_applications,
            "UpdateApplication": self._update_application,
            "DeleteApplication": self._delete_application,
            "CreateDeploymentGroup": self._create_group,
            "GetDeploymentGroup": self._get_group,
            "ListDeploymentGroups": self._list_groups,
            "UpdateDeploymentGroup": self._update_group,
            "DeleteDeploymentGroup": self._delete_group,
            "CreateDeployment": self._create_deployment,
            "GetDeployment": self._get_deployment,
            "BatchGetDeployments": self._batch_get_deployments,
            "ListDeployments": self._list_deployments,
            "StopDeployment": self._stop_deployment,
            "ListDeploymentTargets": self._list_targets,
            "GetDeploymentTarget": self._get_target,
            "BatchGetDeploymentTargets": self._batch_get_targets,
            "RegisterApplicationRevision": self._register_revision,
            "ListApplicationRevisions": self._list_revisions,
        }

    async def handle(
        self, _method: str, _path: str, headers: dict[str, str], body: bytes, _query: dict[str, list[str]]
    ) -> Response:
        """Answer one HTTP request to the service's endpoint."""
        target = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), "")
        prefix, _, operation = target.partition(".")
        try:
            if prefix != TARGET_PREFIX:
                raise ServiceError("UnknownOperationException", f"X-Amz-Target: {target!r} is no operation")
            try:
                parameters = json.loads(body or b"{}")
            except ValueError as error:
                raise ServiceError("SerializationException", f"the body is no JSON: {error}") from error
            return _answer(200, self.call(operation, parameters))
        except ServiceError as error:
            return _answer(400, {"__type": error.code, "message": str(error)})

    def call(self, operation: str, parameters: Item) -> Item:
        """Check and carry out one operation. Raises ServiceError."""
        act = self._operations.get(operation)
        if act is None:
            raise ServiceError("UnknownOperationException", f"{operation} is not emulated")
        shape = self._model.operation_model(operation).input_shape
        if not isinstance(parameters, dict):
            raise ServiceError("SerializationException", "the body is no JSON object")
        required = {
            "applicationName": "ApplicationNameRequiredException",
            "deploymentGroupName": "DeploymentGroupNameRequiredException",
            "serviceRoleArn": "RoleRequiredException",
            "deploymentId": "DeploymentIdRequiredException",
        }
        for name in shape.required_members:
            if name in required and not parameters.get(name):
                raise ServiceError(required[name], f"{name} is required")
        report = ParamValidator().validate(parameters, shape)
        if report.has_errors():
            raise ServiceError("InvalidInputException", report.generate_report())
        return act(parameters)

    def _create_application(self, asked: Item) -> Item:
        name = asked["applicationName"]
        _check_name(name, "InvalidApplicationNameException")
        if asked.get("computePlatform", "Server") != "Server":
            raise ServiceError("InvalidComputePlatformException", "only the Server platform is emulated")
        if name in self._store.applications:
            raise ServiceError("ApplicationAlreadyExistsException", f"Application already exists: {name}")
        with self._store.changing():
            self._store.applications[name] = {
                "applicationId": secrets.token_hex(16),
                "applicationName": name,
                "createTime": now(),
                "linkedToGitHub": False,
                "computePlatform": "Server",
            }
            self._store.groups[name] = {}
            self._store.revisions[name] = []
        return {"applicationId": self._store.applications[name]["applicationId"]}

    def _get_application(self, asked: Item) -> Item:
        return {"application": self._application(asked["applicationName"])}

    def _batch_get_applications(self, asked: Item) -> Item:
        return {"applicationsInfo": [self._application(name) for name in asked["applicationNames"]]}

    def _list_applications(self, _: Item) -> Item:
        return {"applications": sorted(self._store.applications)}

    def _update_application(self, asked: Item) -> Item:
        old, new = asked["applicationName"], asked.get("newApplicationName")
        self._application(old)
        if not new or new == old:
            return {}
        _check_name(new, "InvalidApplicationNameException")
        if new in self._store.applications:
            raise ServiceError("ApplicationAlreadyExistsException", f"Application already exists: {new}")
        with self._store.changing():
            self._store.applications[new] = self._store.applications.pop(old)
            self._store.groups[new] = self._store.groups.pop(old)
            self._store.revisions[new] = self._store.revisions.pop(old)
            self._store.applications[new]["applicationName"] = new
            for item in [*self._store.groups[new].values(), *self._store.deployments.values()]:
                if item["applicationName"] == old:
                    item["applicationName"] = new
        return {}

    def _delete_application(self, asked: Item) -> Item:
        name = asked["applicationName"]
        with self._store.changing():
            self._store.applications.pop(name, None)
            self._store.groups.pop(name, None)
            self._store.revisions.pop(name, None)
        return {}

    def _create_group(self, asked: Item) -> Item:
        application, name = asked["applicationName"], asked["deploymentGroupName"]
        self._application(application)
        _check_name(name, "InvalidDeploymentGroupNameException")
        if name in self._store.groups[application]:
            raise ServiceError(
                "DeploymentGroupAlreadyExistsException", f"Deployment group already exists: {name}"
            )
        _check_group(asked)
        group = {
            "applicationName": application,
            "deploymentGroupId": "-".join(secrets.token_hex(n) for n in (4, 2, 2, 2, 6)),
            "deploymentGroupName": name,
            "deploymentConfigName": DEFAULT_CONFIGURATION,
            "autoRollbackConfiguration": {"enabled": False, "events": []},
            "deploymentStyle": IN_PLACE,
            "computePlatform": "Server",
            "terminationHookEnabled": False,
        }
        with self._store.changing():
            self._store.groups[application][name] = group | _members(asked, GROUP_MEMBERS)
        return {"deploymentGroupId": group["deploymentGroupId"]}

    def _get_group(self, asked: Item) -> Item:
        group = self._group(asked)
        info = self._store.copy_of(group)
        of_group = self._store.deployments_of(group["applicationName"], group["deploymentGroupName"])
        if of_group:
            info["lastAttemptedDeployment"] = _last(of_group[-1])
        last = self._store.last_success(group["applicationName"], group["deploymentGroupName"])
        if last:
            info["lastSuccessfulDeployment"] = _last(last)
        return {"deploymentGroupInfo": info}

    def _list_groups(self, asked: Item) -> Item:
        self._application(asked["applicationName"])
        return {
            "applicationName": asked["applicationName"],
            "deploymentGroups": sorted(self._store.groups[asked["applicationName"]]),
        }

    def _update_group(self, asked: Item) -> Item:
        application, name = asked["applicationName"], asked["currentDeploymentGroupName"]
        group = self._group({"applicationName": application, "deploymentGroupName": name})
        _check_group(asked)
        new: str = asked.get("newDeploymentGroupName") or name
        _check_name(new, "InvalidDeploymentGroupNameException")
        groups = self._store.groups[application]
        if new != name and new in groups:
            raise ServiceError(
                "DeploymentGroupAlreadyExistsException", f"Deployment group already exists: {new}"
            )
        with self._store.changing():
            group |= _members(asked, GROUP_MEMBERS) | {"deploymentGroupName": new}
            groups[new] = groups.pop(name)
            for item in self._store.deployments_of(application, name):
                item["deploymentGroupName"] = new
        return {"hooksNotCleanedUp": []}

    def _delete_group(self, asked: Item) -> Item:
        with self._store.changing():
            self._store.groups.get(asked["applicationName"], {}).pop(asked["deploymentGroupName"], None)
        return {"hooksNotCleanedUp": []}

    def _create_deployment(self, asked: Item) -> Item:
        if not asked.get("deploymentGroupName"):
            raise ServiceError("DeploymentGroupNameRequiredException", "deploymentGroupName is required")
        group = self._group(asked)
        for name in ("targetInstances", "overrideAlarmConfiguration"):
            if asked.get(name):
                raise ServiceError("InvalidInputException", f"{name} is not emulated")
        if asked.get("updateOutdatedInstancesOnly"):
            raise ServiceError("InvalidInputException", "updateOutdatedInstancesOnly is not emulated")
        _check_revision(asked.get("revision"))
        configuration: str = asked.get("deploymentConfigName") or group["deploymentConfigName"]
        _check_configuration(configuration)
        active = self._store.active_deployment(asked["applicationName"], asked["deploymentGroupName"])
        if active:
            raise ServiceError(
                "DeploymentLimitExceededException",
                f"The Deployment Group '{asked['deploymentGroupName']}' already has an active Deployment "
                f"'{active['deploymentId']}'",
            )
        self._remember_revision(asked)
        identifier = self._dispatcher.create(
            _members(asked, ("applicationName", "deploymentGroupName", "revision", "description"))
            | {
                "deploymentConfigName": configuration,
                "creator": "user",
                "computePlatform": "Server",
                "deploymentStyle": IN_PLACE,
                "ignoreApplicationStopFailures": asked.get("ignoreApplicationStopFailures", False),
                "fileExistsBehavior": asked.get("fileExistsBehavior", "DISALLOW"),
                "autoRollbackConfiguration": self._store.copy_of(
                    asked.get("autoRollbackConfiguration") or group["autoRollbackConfiguration"]
                ),
            }
        )
        return {"deploymentId": identifier}

    def _get_deployment(self, asked: Item) -> Item:
        return {"deploymentInfo": self._deployment_info(asked["deploymentId"])}

    def _batch_get_deployments(self, asked: Item) -> Item:
        return {"deploymentsInfo": [self._deployment_info(it) for it in asked["deploymentIds"]]}

    def _list_deployments(self, asked: Item) -> Item:
        filters = {name: asked[name] for name in ("applicationName", "deploymentGroupName") if name in asked}
        if "deploymentGroupName" in filters:
            self._group(asked)
        states = asked.get("includeOnlyStatuses")
        found = [
            item["deploymentId"]
            for item in reversed(list(self._store.deployments.values()))
            if all(item[name] == value for name, value in filters.items())
            and (not states or item["status"] in states)
        ]
        return {"deployments": found}

    def _stop_deployment(self, asked: Item) -> Item:
        item = self._deployment(asked["deploymentId"])
        if item["status"] in FINAL_STATES:
            raise ServiceError(
                "DeploymentAlreadyCompletedException", f"Deployment {item['deploymentId']} has ended"
            )
        self._dispatcher.stop(item["deploymentId"], rollback=asked.get("autoRollbackEnabled", False))
        return {"status": "Pending", "statusMessage": "The deployment is being stopped"}

    def _list_targets(self, asked: Item) -> Item:
        return {"targetIds": list(self._targets(asked["deploymentId"]))}

    def _get_target(self, asked: Item) -> Item:
        target = self._targets(asked["deploymentId"]).get(asked["targetId"])
        if target is None:
            raise ServiceError(
                "DeploymentTargetDoesNotExistException", f"no target {asked['targetId']} in this deployment"
            )
        return {
            "deploymentTarget": {
                "deploymentTargetType": "InstanceTarget",
                "instanceTarget": self._store.copy_of(target),
            }
        }

    def _batch_get_targets(self, asked: Item) -> Item:
        identifier = asked["deploymentId"]
        found = [self._get_target({"deploymentId": identifier, "targetId": it}) for it in asked["targetIds"]]
        return {"deploymentTargets": [it["deploymentTarget"] for it in found]}

    def _register_revision(self, asked: Item) -> Item:
        self._application(asked["applicationName"])
        _check_revision(asked["revision"])
        self._remember_revision(asked)
        return {}

    def _list_revisions(self, asked: Item) -> Item:
        self._application(asked["applicationName"])
        return {"revisions": list(self._store.revisions[asked["applicationName"]])}

    def _remember_revision(self, asked: Item) -> None:
        known = self._store.revisions[asked["applicationName"]]
        if asked["revision"] not in known:
            with self._store.changing():
                known.append(asked["revision"])

    def _application(self, name: str) -> Item:
        if name not in self._store.applications:
            raise ServiceError("ApplicationDoesNotExistException", f"No application found for name: {name}")
        return self._store.applications[name]

    def _group(self, asked: Item) -> Item:
        self._application(asked["applicationName"])
        name = asked["deploymentGroupName"]
        if name not in self._store.groups[asked["applicationName"]]:
            raise ServiceError(
                "DeploymentGroupDoesNotExistException", f"No Deployment Group found for name: {name}"
            )
        return self._store.groups[asked["applicationName"]][name]

    def _deployment(self, identifier: str) -> Item:
        if not re.fullmatch(r"d-[A-Z0-9]{9}", identifier):
            raise ServiceError(
                "InvalidDeploymentIdException", f"{identifier!r} is not of the form d-ABCDEFGH1"
            )
        if identifier not in self._store.deployments:
            raise ServiceError("DeploymentDoesNotExistException", f"No deployment found for id: {identifier}")
        return self._store.deployments[identifier]

    def _targets(self, identifier: str) -> dict[str, Item]:
        if self._deployment(identifier)["status"] == "Created":
            raise ServiceError(
                "DeploymentNotStartedException", f"The specified deployment has not started: {identifier}"
            )
        return self._store.targets[identifier]

    def _deployment_info(self, identifier: str) -> Item:
        info = self._store.copy_of(self._deployment(identifier))
        states = [target["status"] for target in self._store.targets[identifier].values()]
        names = ("Pending", "InProgress", "Succeeded", "Failed", "Skipped", "Ready")
        return info | {"deploymentOverview": {name: states.count(name) for name in names}}


def _check_name(name: str, code: str) -> None:
    if not NAME.fullmatch(name):
        raise ServiceError(code, f"{name!r}: 1 to 100 letters, digits and characters of +=,.@_- are allowed")


def _check_group(asked: Item) -> None:
    shown = {
        "onPremisesInstanceTagFilters",
        "autoScalingGroups",
        "triggerConfigurations",
        "alarmConfiguration",
        "blueGreenDeploymentConfiguration",
        "loadBalancerInfo",
        "ecsServices",
        "onPremisesTagSet",
        "terminationHookEnabled",
    }
    if refused := sorted(name for name in shown if asked.get(name)):
        raise ServiceError("InvalidInputException", f"not emulated: {', '.join(refused)}")
    if asked.get("ec2TagFilters") and asked.get("ec2TagSet"):
        raise ServiceError("InvalidEC2TagCombinationException", "give ec2TagFilters or ec2TagSet, not both")
    if asked.get("deploymentStyle", IN_PLACE) != IN_PLACE:
        raise ServiceError("InvalidDeploymentStyleException", f"only {IN_PLACE} is emulated")
    _check_configuration(asked.get("deploymentConfigName", DEFAULT_CONFIGURATION))
    rollback = asked.get("autoRollbackConfiguration", {})
    if rollback.get("enabled") and not rollback.get("events"):
        raise ServiceError("InvalidAutoRollbackConfigException", "autoRollbackConfiguration needs events")


def _check_configuration(name: str) -> None:
    if name not in CONFIGURATIONS:
        raise ServiceError(
            "DeploymentConfigDoesNotExistException", f"{name!r} is not one of {', '.join(CONFIGURATIONS)}"
        )


def _check_revision(revision: Item | None) -> None:
    if not revision:
        raise ServiceError("RevisionRequiredException", "revision is required")
    location = revision.get("s3Location", {})
    if revision.get("revisionType") != "S3" or not location.get("bucket") or not location.get("key"):
        raise ServiceError("InvalidRevisionException", "only an S3 revision with bucket and key is emulated")
    if location.get("bundleType") != "zip":
        raise ServiceError("InvalidRevisionException", "bundleType: only zip is emulated")


def _members(asked: Item, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: asked[name] for name in names if name in asked}


def _last(item: Item) -> Item:
    info = {"deploymentId": item["deploymentId"], "status": item["status"], "createTime": item["createTime"]}
    return info | ({"endTime": item["completeTime"]} if "completeTime" in item else {})


def _answer(status: int, content: Item) -> Response:
    return status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(content).encode()

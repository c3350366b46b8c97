"""CodeDeploy on the laptop: the service's API, and an agent for every instance that it deploys to."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.codedeploy.dispatcher import Dispatcher
from local.codedeploy.plane import CodeDeployPlane
from local.codedeploy.resources import APPLICATION, GROUP, CodeDeployResources
from local.codedeploy.service import CodeDeployService
from local.codedeploy.store import Store
from local.ecs.containers import SHIM, names_file
from local.paths import LocalPaths

if TYPE_CHECKING:
    from local.account.context import AccountContext


def install(context: AccountContext) -> CodeDeployPlane:
    """Give the account CodeDeploy's API and CloudFormation types, and return the plane behind them."""
    store = Store(context.paths.state_directory / "codedeploy" / "state.json")
    dispatcher = Dispatcher(
        store=store,
        paths=context.paths,
        ec2=context.boto3_client("ec2"),
        log_in=lambda instance: RoleOfInstance(context, instance),
        environment=script_environment(context.paths),
        logger=context.logger,
        dies_in=lambda event: context.faults.now.agent_dies_in == event,
    )
    service = CodeDeployService(store=store, dispatcher=dispatcher)
    context.register_service("codedeploy", service.handle)
    resources = CodeDeployResources(service)
    context.register_resource_type(
        APPLICATION,
        resources.create_application,
        resources.update_application,
        resources.delete_application,
    )
    context.register_resource_type(
        GROUP, resources.create_group, resources.update_group, resources.delete_group
    )
    return CodeDeployPlane(dispatcher)


class RoleOfInstance:
    """The role in an instance's profile, with which its agents and scripts work."""

    def __init__(self, context: AccountContext, instance: dict[str, Any]) -> None:
        self._context = context
        profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        found = context.boto3_client("iam").get_instance_profile(InstanceProfileName=profile)
        [role] = found["InstanceProfile"]["Roles"]
        permissions = context.permissions
        self._credentials = permissions.credentials(role["Arn"], instance["InstanceId"])
        permissions.needed(self._credentials, permissions.reader.of_a_managed_instance())

    @property
    def environment(self) -> Mapping[str, str]:
        """The credentials as variables, which stand for the metadata service."""
        return self._credentials.environment()

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return self._context.boto3_client(service, self._credentials)

    def mounts(self, file_system_id: str) -> None:
        """The instance mounts a file system of EFS, where its scripts write as root."""
        permissions = self._context.permissions
        needed = permissions.reader.of_a_mount(file_system_id, writes=True, as_root=True)
        permissions.needed(self._credentials, needed)


def script_environment(paths: LocalPaths) -> dict[str, str]:
    """Return what hook scripts inherit: this Python as python3, the account's endpoint, and the names of the VPC that
    the instance is in."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(SHIM),
        "UPDRAFT_TASK_ADDRESS": "127.0.0.1",
        "UPDRAFT_TASK_NAMES": str(names_file(paths)),
        "AWS_ENDPOINT_URL": paths.endpoint_url,
        "AWS_REGION": paths.region,
    }

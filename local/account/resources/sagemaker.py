"""AWS::SageMaker::ModelPackageGroup and the two types of a notebook, through the account's SageMaker API."""

from __future__ import annotations

from typing import Any

from local.account.context import AccountContext
from local.account.resources.shapes import to_api

Props = dict[str, Any]
Made = tuple[str, Props]
MODEL_PACKAGE_GROUP = "AWS::SageMaker::ModelPackageGroup"
NOTEBOOK = "AWS::SageMaker::NotebookInstance"
LIFECYCLE = "AWS::SageMaker::NotebookInstanceLifecycleConfig"
# What a change of replaces the notebook instance; everything else is changed while it is stopped.
REPLACES = (
    "NotebookInstanceName",
    "SubnetId",
    "SecurityGroupIds",
    "KmsKeyId",
    "DirectInternetAccess",
    "PlatformIdentifier",
)
WAIT = {"Delay": 1, "MaxAttempts": 60}


def install(context: AccountContext) -> None:
    """Register the types."""
    for resource_type, handlers in (
        (MODEL_PACKAGE_GROUP, ModelPackageGroup(context)),
        (LIFECYCLE, LifecycleConfig(context)),
        (NOTEBOOK, NotebookInstance(context)),
    ):
        context.register_resource_type(resource_type, handlers.create, handlers.update, handlers.delete)


class ModelPackageGroup:
    """A group is its name: another name is another group."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context

    def create(self, _logical_id: str, props: Props, _stack_name: str) -> Made:
        request = to_api("sagemaker", "CreateModelPackageGroup", props)
        client = self._context.boto3_client("sagemaker")
        arn = client.create_model_package_group(**request)["ModelPackageGroupArn"]
        return arn, {"ModelPackageGroupArn": arn}

    def update(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> Made:
        if old["ModelPackageGroupName"] == new["ModelPackageGroupName"]:
            return physical_id, {"ModelPackageGroupArn": physical_id}
        return self.create(logical_id or physical_id, new, stack_name)

    def delete(self, physical_id: str, _props: Props) -> None:
        self._context.boto3_client("sagemaker").delete_model_package_group(
            ModelPackageGroupName=physical_id.rsplit("/", 1)[1]
        )


class LifecycleConfig:
    """The scripts of a notebook instance."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context

    def create(self, _logical_id: str, props: Props, _stack_name: str) -> Made:
        request = to_api("sagemaker", "CreateNotebookInstanceLifecycleConfig", props)
        self._context.boto3_client("sagemaker").create_notebook_instance_lifecycle_config(**request)
        return _named("NotebookInstanceLifecycleConfigName", props)

    def update(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> Made:
        key = "NotebookInstanceLifecycleConfigName"
        if old[key] != new[key]:
            return self.create(logical_id or physical_id, new, stack_name)
        scripts = {name: new.get(name, []) for name in ("OnCreate", "OnStart")}
        request = to_api("sagemaker", "UpdateNotebookInstanceLifecycleConfig", {key: new[key], **scripts})
        self._context.boto3_client("sagemaker").update_notebook_instance_lifecycle_config(**request)
        return _named(key, new)

    def delete(self, physical_id: str, _props: Props) -> None:
        self._context.boto3_client("sagemaker").delete_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=physical_id
        )


class NotebookInstance:
    """Made in service; stopped for a change and for its end, as CloudFormation does."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context

    def create(self, _logical_id: str, props: Props, _stack_name: str) -> Made:
        request = to_api("sagemaker", "CreateNotebookInstance", props)
        client = self._context.boto3_client("sagemaker")
        client.create_notebook_instance(**request)
        name = props["NotebookInstanceName"]
        client.get_waiter("notebook_instance_in_service").wait(NotebookInstanceName=name, WaiterConfig=WAIT)
        return _named("NotebookInstanceName", props)

    def update(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> Made:
        if any(old.get(key) != new.get(key) for key in REPLACES):
            return self.create(logical_id or physical_id, new, stack_name)
        kept = {key: value for key, value in new.items() if key not in (*REPLACES, "Tags")}
        request = to_api("sagemaker", "UpdateNotebookInstance", kept | {"NotebookInstanceName": physical_id})
        client = self._context.boto3_client("sagemaker")
        was_running = self._stop(client, physical_id)
        client.update_notebook_instance(**request)
        client.get_waiter("notebook_instance_stopped").wait(
            NotebookInstanceName=physical_id, WaiterConfig=WAIT
        )
        if was_running:
            client.start_notebook_instance(NotebookInstanceName=physical_id)
        return _named("NotebookInstanceName", new)

    def delete(self, physical_id: str, _props: Props) -> None:
        client = self._context.boto3_client("sagemaker")
        self._stop(client, physical_id)
        client.delete_notebook_instance(NotebookInstanceName=physical_id)
        client.get_waiter("notebook_instance_deleted").wait(
            NotebookInstanceName=physical_id, WaiterConfig=WAIT
        )

    def _stop(self, client: Any, name: str) -> bool:
        status = client.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceStatus"]
        if status != "InService":
            return False
        client.stop_notebook_instance(NotebookInstanceName=name)
        client.get_waiter("notebook_instance_stopped").wait(NotebookInstanceName=name, WaiterConfig=WAIT)
        return True


def _named(key: str, props: Props) -> Made:
    return props[key], {key: props[key]}

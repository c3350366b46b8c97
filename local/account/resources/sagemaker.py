"""AWS::SageMaker::ModelPackageGroup, through the account's SageMaker API."""

from __future__ import annotations

from typing import Any

from local.account.context import AccountContext
from local.account.resources.shapes import to_api

Props = dict[str, Any]
MODEL_PACKAGE_GROUP = "AWS::SageMaker::ModelPackageGroup"


def install(context: AccountContext) -> None:
    """Register the type."""

    def create(_logical_id: str, props: Props, _stack_name: str) -> tuple[str, Props]:
        request = to_api("sagemaker", "CreateModelPackageGroup", props)
        arn = context.boto3_client("sagemaker").create_model_package_group(**request)["ModelPackageGroupArn"]
        return arn, {"ModelPackageGroupArn": arn}

    def update(
        physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        if old["ModelPackageGroupName"] == new["ModelPackageGroupName"]:
            return physical_id, {"ModelPackageGroupArn": physical_id}
        return create(logical_id or physical_id, new, stack_name)

    def delete(physical_id: str, _props: Props) -> None:
        context.boto3_client("sagemaker").delete_model_package_group(
            ModelPackageGroupName=physical_id.rsplit("/", 1)[1]
        )

    context.register_resource_type(MODEL_PACKAGE_GROUP, create, update, delete)

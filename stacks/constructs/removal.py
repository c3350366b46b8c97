"""What becomes of data when CloudFormation deletes its resource."""

from __future__ import annotations

import aws_cdk as cdk

from stacks.config import EnvironmentConfig


def data_removal_policy(config: EnvironmentConfig) -> cdk.RemovalPolicy:
    """Kept where the environment says so, except when its creation rolls back: then it holds nothing yet.

    With plain RETAIN an empty secret or model group would outlive a first deployment that failed, and the next one
    would end at its name: "already exists".
    """
    if config.keep_data_on_destroy:
        return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
    return cdk.RemovalPolicy.DESTROY

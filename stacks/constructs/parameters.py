"""Parameters whose values belong to what runs: named and granted here, and made by the first who writes them.

CloudFormation writes its own value over theirs whenever it updates a parameter, and a changed tag is enough for that.
`./updraft destroy` deletes them.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam


def parameter_arn(stack: cdk.Stack, name: str) -> str:
    """The ARN of a parameter by its whole name."""
    return stack.format_arn(service="ssm", resource="parameter", resource_name=name.lstrip("/"))


def read_and_write(*arns: str) -> iam.PolicyStatement:
    """May read and write exactly these.

    CDK's own grants add the parameter's history, and `ssm:DescribeParameters`, which AWS allows on no single one.
    """
    return iam.PolicyStatement(actions=["ssm:GetParameter", "ssm:PutParameter"], resources=list(arns))

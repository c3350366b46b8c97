"""Waivers: why one resource may break one rule. They stand beside the resource and are printed in docs/security.md."""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

METADATA_TYPE = "updraft:waiver"


def waive(construct: IConstruct, reason: str, *rules: str) -> None:
    """Waive rules at exactly one resource: the construct's own, never at what lies beneath it.

    A rule is named as its finding names it, such as `AwsSolutions-S1`. A rule with findings of its own in brackets
    can be waived with the bracket (that finding) or without (all of its findings at this resource). A waiver that
    waives nothing is a finding itself (`stacks/rules.py`).
    """
    resource = construct if cdk.CfnResource.is_cfn_resource(construct) else construct.node.default_child
    if resource is None or not cdk.CfnResource.is_cfn_resource(resource):
        raise ValueError(f"{construct.node.path} is no single resource: waive at the resource that is meant")
    for rule in rules:
        resource.node.add_metadata(METADATA_TYPE, {"rule": rule, "reason": reason})


def waive_each(scope: Construct, resource_type: str, reason: str, *rules: str) -> None:
    """The same waiver for every resource of a CloudFormation type beneath a construct whose parts are not ours."""
    for construct in scope.node.find_all():
        if cdk.CfnResource.is_cfn_resource(construct):
            resource = cast(cdk.CfnResource, construct)
            if resource.cfn_resource_type == resource_type:
                waive(resource, reason, *rules)


def policy_of(role: iam.IRole | IConstruct | None) -> IConstruct:
    """The policy that CDK gathers a role's grants in."""
    assert role is not None, "every role of ours is made by us"
    return role.node.find_child("DefaultPolicy")

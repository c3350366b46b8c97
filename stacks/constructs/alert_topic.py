"""An SNS topic that tells people what went wrong."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.waivers import waive


def alert_topic(scope: Construct, construct_id: str, *, display_name: str, email: str | None) -> sns.Topic:
    """A topic that takes messages over TLS alone and sends them to `email`, where there is one."""
    topic = sns.Topic(scope, construct_id, display_name=display_name, enforce_ssl=True)
    # The policy that demands TLS replaces the one that SNS makes, by which alarms of the account could publish.
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}},
        )
    )
    waive(
        topic,
        "Messages name jobs and runs and no data; CloudWatch can't publish with the key that AWS keeps for SNS",
        "NIST.800.53.R5-SNSEncryptedKMS",
    )
    if email is not None:
        topic.add_subscription(subscriptions.EmailSubscription(email))
    return topic

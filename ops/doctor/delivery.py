"""Delivery: what was pushed is there and is served, and the agent that delivers is alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError, require_awake

LONGEST_DEPLOYMENT = timedelta(minutes=10)
NOT_FOUND = ("404", "NoSuchKey", "NotFound")


def pointer(account: Account) -> Iterator[Finding]:
    """The live version is one that was pushed."""
    version = account.pointer
    if version == "none":
        return
    bucket = account.place.output("storage", "BundlesBucket")
    try:
        account.client("s3").head_object(Bucket=bucket, Key=f"{version}.zip")
    except ClientError as error:
        if error.response["Error"]["Code"] not in NOT_FOUND:
            raise
        yield Finding(
            f"the pointer names version {version}, which was never pushed (no {version}.zip in {bucket})",
            f"push again: ./updraft push --environment {account.config.environment}",
        )


def served(account: Account) -> Iterator[Finding]:
    """The dag-processor serves the version that the pointer names."""
    require_awake(account)
    if account.pointer == "none":
        raise NotApplicableError("nothing has been pushed yet")
    versions: dict[str, list[str]] = {}
    for dag in account.airflow.dags():
        versions.setdefault(dag["bundle_version"] or "none", []).append(dag["dag_id"])
    others = {version: dags for version, dags in versions.items() if version != account.pointer}
    for version, dags in others.items():
        yield Finding(
            f"{', '.join(sorted(dags))} is served from version {version}, but {account.pointer} was pushed",
            "see why it isn't parsed: ./updraft logs dag-processor; then push again",
        )
    for error in account.airflow.import_errors():
        last_line = error["stack_trace"].strip().splitlines()[-1]
        yield Finding(
            f"{error['filename']} can't be imported: {last_line}",
            "mend the file and push again: ./updraft push",
        )


def deployment(account: Account) -> Iterator[Finding]:
    """The last deployment didn't fail, and none waits for an agent that doesn't come."""
    client = account.client("codedeploy")
    names = {
        "applicationName": account.place.output("delivery", "ApplicationName"),
        "deploymentGroupName": account.place.output("delivery", "DeploymentGroupName"),
    }
    group = client.get_deployment_group(**names)["deploymentGroupInfo"]
    last = group.get("lastAttemptedDeployment")
    if last is None:
        raise NotApplicableError("there has been no deployment yet")
    info: dict[str, Any] = client.get_deployment(deploymentId=last["deploymentId"])["deploymentInfo"]
    if info["status"] == "Failed":
        reason = info.get("errorInformation", {}).get("message", "no reason given")
        yield Finding(
            f"the last deployment, {last['deploymentId']}, failed: {reason}",
            "mend what it says and push again: ./updraft push",
        )
    elif info["status"] not in ("Succeeded", "Stopped"):
        age = account.now - info["createTime"]
        if age > LONGEST_DEPLOYMENT:
            yield Finding(
                f"deployment {last['deploymentId']} has been {info['status']} for {age.total_seconds() / 60:.0f} "
                "minutes: the CodeDeploy agent is lost",
                "restart it on the bastion: sudo systemctl restart codedeploy-agent; stop the deployment, push again",
            )


def bastion(account: Account) -> Iterator[Finding]:
    """The instance that delivers runs, and answers to Systems Manager."""
    require_awake(account)
    instance_id = account.place.output("network", "BastionInstanceId")
    found = account.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"]
    states = [instance["State"]["Name"] for item in found for instance in item["Instances"]]
    if states != ["running"]:
        yield Finding(
            f"the bastion {instance_id} is {', '.join(states) or 'gone'}: nothing can be pushed or reached",
            f"start it: aws ec2 start-instances --instance-ids {instance_id}",
        )
        return
    answer = account.client("ssm").describe_instance_information(
        Filters=[{"Key": "InstanceIds", "Values": [instance_id]}]
    )
    for item in answer["InstanceInformationList"]:
        if item["PingStatus"] != "Online":
            yield Finding(
                f"the bastion {instance_id} doesn't answer to Systems Manager (it is {item['PingStatus']}): no tunnel",
                f"reboot it: aws ec2 reboot-instances --instance-ids {instance_id}",
            )


CHECKS = (
    Check("pointer", "the live version and the pushed bundles", pointer),
    Check("served", "the version that is served, and import errors", served),
    Check("deployment", "the last CodeDeploy deployment and its agent", deployment),
    Check("bastion", "the instance that delivers and tunnels", bastion),
)

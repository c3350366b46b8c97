"""What keeps data: private, encrypted, reached by TLS alone, and not gone by accident."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stacks.aws_rules.statements import allowed
from stacks.aws_rules.templates import Finding, Templates, as_list, is_true

PUBLIC_ACCESS_BLOCK = {
    "BlockPublicAcls",
    "BlockPublicPolicy",
    "IgnorePublicAcls",
    "RestrictPublicBuckets",
}
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
SQS_VISIBILITY_SECONDS = 43_200
# Airflow's tasks run for hours; a shorter visibility timeout hands a running one out again.
SHORTEST_VISIBILITY_SECONDS = 3_600
ALARM_ACTIONS = ("AlarmActions", "OKActions", "InsufficientDataActions")
WRITES = ("elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess")


def buckets(templates: Templates) -> Iterator[Finding]:
    """No public access, TLS alone, versions."""
    policies = [
        (templates.target(policy.stack, policy.properties["Bucket"]), policy)
        for policy in templates.of("AWS::S3::BucketPolicy")
    ]
    for bucket in templates.of("AWS::S3::Bucket"):
        block = bucket.properties.get("PublicAccessBlockConfiguration", {})
        missing = [name for name in sorted(PUBLIC_ACCESS_BLOCK) if not is_true(block.get(name, False))]
        if missing:
            yield bucket.finding("S3-PUBLIC", f"lacks {', '.join(missing)}", "Block all public access")
        statements = [
            statement
            for owner, policy in policies
            if owner is bucket
            for statement in as_list(policy.properties["PolicyDocument"]["Statement"])
        ]
        if not any(
            statement["Effect"] == "Deny" and "aws:SecureTransport" in json.dumps(statement)
            for statement in statements
        ):
            yield bucket.finding(
                "S3-TLS", "takes requests without TLS", "Deny what has no aws:SecureTransport"
            )
        if any(
            statement["Effect"] == "Allow" and statement["Principal"] in ("*", {"AWS": "*"})
            for statement in statements
        ):
            yield bucket.finding("S3-PUBLIC", "has a policy that allows everybody", "Name the principals")
        if bucket.properties.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield bucket.finding("S3-VERSIONS", "keeps no versions", "Enable versioning")


def databases(templates: Templates) -> Iterator[Finding]:
    """Encrypted, TLS forced, IAM log-in, no password in the template, no minor version; a protected one is kept."""
    forced = {
        parameters.id
        for parameters in templates.of("AWS::RDS::DBParameterGroup")
        if str(parameters.properties.get("Parameters", {}).get("rds.force_ssl")) == "1"
    }
    for database in templates.of("AWS::RDS::DBInstance"):
        properties = database.properties
        group = templates.target(database.stack, properties.get("DBParameterGroupName"))
        if group is None or group.id not in forced:
            yield database.finding("RDS-TLS", "takes connections without TLS", "Set rds.force_ssl to 1")
        if not is_true(properties.get("StorageEncrypted", False)):
            yield database.finding(
                "RDS-ENCRYPTION", "is not encrypted", "It can't be turned on later: do it now"
            )
        if not is_true(properties.get("EnableIAMDatabaseAuthentication", False)):
            yield database.finding(
                "RDS-IAM", "takes no IAM log-in", "The load metric logs in by IAM: enable it"
            )
        if "{{resolve:secretsmanager:" not in templates.text(
            database.stack, properties.get("MasterUserPassword", "{{resolve:secretsmanager:")
        ):
            yield database.finding("SECRET-IN-CLEAR", "has its password in the clear", "Generate a secret")
        version = str(properties.get("EngineVersion", ""))
        if "." in version:
            yield database.finding(
                "RDS-VERSION",
                f"names the minor version {version}, which AWS will stop creating",
                "Name the major one alone: RDS takes its default minor version",
            )
        kept = database.body.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate", "Snapshot")
        if int(properties.get("BackupRetentionPeriod", 1)) >= 7 and not kept:
            yield database.finding(
                "RDS-KEEP",
                "has backups of a week and more, and goes with its stack",
                "Snapshot it on deletion",
            )


def brokers(templates: Templates) -> Iterator[Finding]:
    """TLS, without which ElastiCache takes no password; failover needs two nodes."""
    for broker in templates.of("AWS::ElastiCache::ReplicationGroup"):
        properties = broker.properties
        if not is_true(properties.get("TransitEncryptionEnabled", False)):
            yield broker.finding("BROKER-TLS", "has no TLS", "ElastiCache refuses an AuthToken without it")
        if not is_true(properties.get("AtRestEncryptionEnabled", False)):
            yield broker.finding("BROKER-ENCRYPTION", "is not encrypted at rest", "Encrypt it")
        if "AuthToken" not in properties and "UserGroupIds" not in properties:
            yield broker.finding("BROKER-PASSWORD", "has no password", "Give it an AuthToken from a secret")
        nodes = int(properties.get("NumCacheClusters", 1))
        if is_true(properties.get("AutomaticFailoverEnabled", False)) and nodes < 2:
            yield broker.finding(
                "BROKER-NODES", "fails over to nothing", "Automatic failover takes two nodes"
            )


def queues(templates: Templates) -> Iterator[Finding]:
    """Visibility within SQS's limit and above the longest task, dead letters, TLS."""
    dead = {
        target.id
        for queue in templates.of("AWS::SQS::Queue")
        for target in templates.targets(queue.stack, queue.properties.get("RedrivePolicy"))
    }
    for queue in templates.of("AWS::SQS::Queue"):
        visibility = int(queue.properties.get("VisibilityTimeout", 30))
        if visibility > SQS_VISIBILITY_SECONDS:
            yield queue.finding("SQS-VISIBILITY", f"hides messages for {visibility} s", "SQS ends at 43200 s")
        if queue.id in dead:
            continue
        if visibility < SHORTEST_VISIBILITY_SECONDS:
            yield queue.finding(
                "SQS-VISIBILITY",
                f"hands a message out again after {visibility} s",
                "A task that runs longer would run twice: set it above the longest task",
            )
        if "RedrivePolicy" not in queue.properties:
            yield queue.finding("SQS-DEAD-LETTERS", "has no dead-letter queue", "Give it one")


def file_systems(templates: Templates) -> Iterator[Finding]:
    """Encrypted; mounted with TLS and IAM; writable by those alone who deliver."""
    for file_system in templates.of("AWS::EFS::FileSystem"):
        if not is_true(file_system.properties.get("Encrypted", False)):
            yield file_system.finding("EFS-ENCRYPTION", "is not encrypted", "Encrypt it")
        policy = file_system.properties.get("FileSystemPolicy", {})
        for statement in as_list(policy.get("Statement")):
            if statement["Effect"] == "Allow" and statement["Principal"] in ("*", {"AWS": "*"}):
                yield file_system.finding(
                    "EFS-WRITE",
                    f"lets everybody who mounts it do {', '.join(as_list(statement['Action']))}",
                    "Deny what has no TLS, and let the roles' own policies allow the rest",
                )
        if not policy:
            yield file_system.finding("EFS-WRITE", "has no policy: everybody may write", "Give it one")
    task_roles = {
        role
        for definition in templates.of("AWS::ECS::TaskDefinition")
        if (role := templates.target(definition.stack, definition.properties.get("TaskRoleArn")))
    }
    for role in task_roles:
        for action in WRITES:
            for _, statement in allowed(templates, role, action):
                yield statement.policy.finding(
                    "EFS-WRITE",
                    f"lets tasks do {action}",
                    "Releases are immutable: only the bastion writes them",
                )
    yield from _mounts(templates)


def _mounts(templates: Templates) -> Iterator[Finding]:
    for definition in templates.of("AWS::ECS::TaskDefinition"):
        for volume in as_list(definition.properties.get("Volumes")):
            efs = volume.get("EFSVolumeConfiguration", volume.get("EfsVolumeConfiguration"))
            if efs is None:
                continue
            iam = efs.get("AuthorizationConfig", {}).get("IAM", efs.get("AuthorizationConfig", {}).get("Iam"))
            if efs.get("TransitEncryption") != "ENABLED":
                yield definition.finding(
                    "EFS-TLS", f"mounts {volume['Name']} without TLS", "IAM log-in needs TLS"
                )
            if iam != "ENABLED":
                yield definition.finding(
                    "EFS-IAM", f"mounts {volume['Name']} as anybody", "Enable IAM log-in"
                )
            role = templates.target(definition.stack, definition.properties.get("TaskRoleArn"))
            if role is None or not allowed(templates, role, "elasticfilesystem:ClientMount"):
                yield definition.finding(
                    "EFS-MOUNT",
                    f"may not mount {volume['Name']}",
                    "Allow its task role elasticfilesystem:ClientMount",
                )


def secrets(templates: Templates) -> Iterator[Finding]:
    """Generated, and never rotated beneath tasks that read them once, at their start."""
    for secret in templates.of("AWS::SecretsManager::Secret"):
        if "GenerateSecretString" not in secret.properties:
            yield secret.finding("SECRET-IN-CLEAR", "has its value in the template", "Let AWS generate it")
    for rotation in templates.of("AWS::SecretsManager::RotationSchedule"):
        yield rotation.finding(
            "SECRET-ROTATION",
            "rotates a secret that tasks read at their start",
            "Running tasks would be locked out",
        )
    for stack, template in templates.by_stack.items():
        if "Transform" in template:
            yield Finding(
                "TRANSFORM",
                stack,
                "",
                f"needs the transform {template['Transform']}",
                "CloudFormation would fetch an application from the Serverless repository: write it out",
            )


def log_groups(templates: Templates) -> Iterator[Finding]:
    """A retention; and with a key of our own, CloudWatch Logs in the key's policy."""
    for group in templates.of("AWS::Logs::LogGroup"):
        if "RetentionInDays" not in group.properties:
            yield group.finding("LOGS-RETENTION", "is kept for ever", "Give it a retention")
        key = templates.target(group.stack, group.properties.get("KmsKeyId"))
        if key is not None and not re.search(
            r"logs\.[\w.${}:-]*amazonaws", json.dumps(key.properties["KeyPolicy"])
        ):
            yield group.finding(
                "LOGS-KEY",
                f"is encrypted with {key.id}, whose policy doesn't know CloudWatch Logs",
                "Let logs.<region>.amazonaws.com use the key",
            )


def topics(templates: Templates) -> Iterator[Finding]:
    """CloudWatch can publish to the topics of alarms: with their key, and by their policy."""
    for topic in templates.of("AWS::SNS::Topic"):
        if "alias/aws/sns" in json.dumps(topic.properties.get("KmsMasterKeyId", "")):
            yield topic.finding(
                "ALARM-TOPIC",
                "is encrypted with AWS's own key",
                "Alarms can't publish to it: take a key of your own",
            )
    alarmed = {
        topic
        for alarm in templates.of("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
        for actions in ALARM_ACTIONS
        for topic in templates.targets(alarm.stack, alarm.properties.get(actions))
        if topic.type == "AWS::SNS::Topic"
    }
    for topic in alarmed:
        statements = [
            statement
            for policy in templates.of("AWS::SNS::TopicPolicy")
            if topic in templates.targets(policy.stack, policy.properties["Topics"])
            for statement in as_list(policy.properties["PolicyDocument"]["Statement"])
        ]
        # Without any policy SNS makes one that lets the account's alarms publish; a policy of ours replaces it.
        if statements and not any(_lets_cloudwatch_publish(statement) for statement in statements):
            yield topic.finding(
                "ALARM-TOPIC",
                "has a policy that does not let CloudWatch publish: its alarms reach nobody",
                "Allow cloudwatch.amazonaws.com sns:Publish",
            )


def _lets_cloudwatch_publish(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    services = as_list(principal.get("Service")) if isinstance(principal, dict) else []
    return (
        statement["Effect"] == "Allow"
        and "cloudwatch.amazonaws.com" in services
        and "sns:Publish" in as_list(statement.get("Action"))
    )


def kept_resources(templates: Templates) -> Iterator[Finding]:
    """What is kept goes nevertheless with a first creation that failed."""
    for resource in templates:
        if resource.body.get("DeletionPolicy") == "Retain":
            yield resource.finding(
                "RETAIN",
                "stays behind when its creation is rolled back",
                "The next deployment would meet its name: take RetainExceptOnCreate",
            )


RULES = (buckets, databases, brokers, queues, file_systems, secrets, log_groups, topics, kept_resources)

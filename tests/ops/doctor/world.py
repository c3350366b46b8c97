"""A small healthy environment in memory, answering as boto3's clients do; tests break one thing in it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from stacks.config import EnvironmentConfig, parse_environment

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=3)
VERSION = "0123456789abcdef"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:jwt-AbCdEf"
JWT = {"name": "AIRFLOW__API_AUTH__JWT_SECRET", "valueFrom": f"{SECRET}:::"}
SQS = {
    "database": {
        "instance_class": "db.t4g.micro",
        "ca_bundle": "docker/certificates/rds-global-bundle.pem",
    },
    "broker": {"kind": "sqs"},
    "network": {"nat": "instance"},
    "services": {},
    "workers": {"default": {"cpu": 1024, "memory_mib": 4096, "concurrency": 8, "min": 0, "max": 5}},
}
REDIS = SQS | {"broker": {"kind": "redis"}}
OUTPUTS = {
    "ClusterName": "updraft-dev",
    "DatabaseIdentifier": "updraft-dev-metadata",
    "PointerParameter": "/updraft/dev/bundle/pointer",
    "BundlesBucket": "bundles",
    "ApplicationName": "updraft-dev-dags",
    "DeploymentGroupName": "updraft-dev-bastion",
    "BastionInstanceId": "i-1",
    "ReleasesFileSystemId": "fs-1",
    "VpcId": "vpc-1",
    "LoadMetricFunctionName": "load-metric",
}


def container(name: str) -> dict[str, Any]:
    return {
        "name": "airflow",
        "environment": [
            {"name": "UPDRAFT_BROKER", "value": "redis"},
            {
                "name": "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
                "value": "http://webserver.updraft-dev.internal:8080/execution/",
            },
        ],
        "secrets": [dict(JWT)],
        "logConfiguration": {"options": {"awslogs-group": f"/updraft/dev/{name}"}},
    }


def service(name: str, group: str) -> dict[str, Any]:
    return {
        "serviceName": name,
        "desiredCount": 1,
        "taskDefinition": f"arn:aws:ecs:::task-definition/updraft-dev-{name}:1",
        "deployments": [
            {"createdAt": LONG_AGO, "rolloutState": "COMPLETED", "taskDefinition": f"x/{name}:1"}
        ],
        "serviceRegistries": [{"registryArn": "arn:x/srv-1"}] if name == "webserver" else [],
        "networkConfiguration": {"awsvpcConfiguration": {"securityGroups": [group]}},
    }


def task(name: str, address: str) -> dict[str, Any]:
    return {
        "taskArn": f"arn:task/{name}",
        "group": f"service:{name}",
        "lastStatus": "RUNNING",
        "healthStatus": "HEALTHY",
        "createdAt": LONG_AGO,
        "taskDefinitionArn": f"arn:aws:ecs:::task-definition/updraft-dev-{name}:1",
        "attachments": [{"details": [{"name": "privateIPv4Address", "value": address}]}],
    }


def call(verdict: str, action: str = "s3:GetObject", resource: str = "arn:aws:s3:::data/x") -> dict[str, Any]:
    """An entry of the local account's record."""
    grant = "arn:aws:s3:::data/*" if verdict == "allowed" else ""
    role = "arn:aws:iam::123456789012:role/updraft-dev-airflow-TaskRole"
    return {
        "role": role, "action": action, "resource": resource, "verdict": verdict, "grant": grant, "count": 2
    }  # fmt: skip


@dataclass
class World:
    """Everything the account would answer; `broken` names services that give no answer at all."""

    config: EnvironmentConfig = field(default_factory=lambda: parse_environment("dev", REDIS))
    broken: set[str] = field(default_factory=set)
    services: list[dict[str, Any]] = field(
        default_factory=lambda: [service("webserver", "sg-web"), service("scheduler", "sg-airflow")]
    )
    tasks: list[dict[str, Any]] = field(
        default_factory=lambda: [task("webserver", "10.0.1.1"), task("scheduler", "10.0.1.2")]
    )
    stopped: list[dict[str, Any]] = field(default_factory=list)
    containers: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            name: container(name) for name in ("webserver", "scheduler", "worker-default")
        }
    )
    registered: list[str] = field(default_factory=lambda: ["10.0.1.1"])
    rules: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": "sg-airflow"}]}
        ]
    )
    secret_created: datetime = LONG_AGO - timedelta(days=1)
    stacks: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {
                "StackName": "updraft-dev-airflow",
                "StackStatus": "UPDATE_COMPLETE",
                "CreationTime": LONG_AGO,
            }
        ]
    )
    database: dict[str, Any] = field(
        default_factory=lambda: {
            "DBInstanceIdentifier": "updraft-dev-metadata",
            "DBInstanceStatus": "available",
            "DBParameterGroups": [{"DBParameterGroupName": "pg"}],
            "IAMDatabaseAuthenticationEnabled": True,
            "AllocatedStorage": 20,
            "CertificateDetails": {"ValidTill": NOW + timedelta(days=400)},
        }
    )
    force_ssl: str = "1"
    metrics: dict[str, list[float]] = field(
        default_factory=lambda: {
            "FreeStorageSpace": [15.0 * 2**30],
            "LiveWorkers": [0.0] * 30,
            "WantedWorkers": [0.0] * 30,
            "QueuedTasks": [0.0] * 30,
            "RunningTasks": [0.0] * 30,
        }
    )
    log_groups: set[str] = field(
        default_factory=lambda: {
            f"/updraft/dev/{name}" for name in ("webserver", "scheduler", "worker-default")
        }
    )
    visibility_timeout: int = 43_200
    sleep: str = "awake"
    pointer: str = VERSION
    bundles: set[str] = field(default_factory=lambda: {f"{VERSION}.zip"})
    dags: list[dict[str, Any]] = field(default_factory=lambda: [{"dag_id": "etl", "bundle_version": VERSION}])
    import_errors: list[dict[str, Any]] = field(default_factory=list)
    longest: dict[str, Any] | None = None
    heartbeat: datetime = NOW - timedelta(seconds=3)
    deployment: dict[str, Any] = field(
        default_factory=lambda: {"status": "Succeeded", "createTime": LONG_AGO}
    )
    bastion_state: str = "running"
    bastion_ping: str = "Online"
    quotas: dict[str, float] = field(default_factory=lambda: {"ml.g5.xlarge for training job usage": 1.0})
    vcpus: dict[str, float] = field(default_factory=lambda: {"L-3032A538": 64.0, "L-36FBB829": 64.0})
    date: str = "Mon, 02 Mar 2026 12:00:01 GMT"
    efs: dict[str, Any] = field(
        default_factory=lambda: {"LifeCycleState": "available", "SizeInBytes": {"Value": 10**9}}
    )
    routes: list[dict[str, Any]] = field(default_factory=lambda: [{"State": "active"}])
    nat: dict[str, Any] | None = None
    alarms: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=lambda: [call("allowed")])

    # The target

    def client(self, name: str) -> Any:
        if name in self.broken:
            raise EndpointConnectionError(endpoint_url=name)
        return Client(self)

    def recorded_permissions(self) -> dict[str, Any]:
        return {"calls": self.calls, "grants": {}}

    def output(self, _stack: str, key: str) -> str:
        return OUTPUTS[key]

    def airflow(self) -> Any:
        return SimpleNamespace(
            dags=lambda: self.dags,
            import_errors=lambda: self.import_errors,
            longest_task=lambda: self.longest,
            scheduler_heartbeat=self.heartbeat.isoformat,
        )


class Paginator:
    """One page of an operation's answer."""

    def __init__(self, operation: Any) -> None:
        self._operation = operation

    def paginate(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        yield self._operation(**arguments)


class Client:
    """The operations that the checks call, of every AWS service."""

    def __init__(self, world: World) -> None:
        self._world = world

    exceptions = SimpleNamespace(ParameterNotFound=KeyError)

    def get_paginator(self, operation: str) -> Paginator:
        return Paginator(getattr(self, operation))

    def list_services(self, **_: Any) -> dict[str, Any]:
        return {"serviceArns": [item["serviceName"] for item in self._world.services]}

    def describe_services(self, **_: Any) -> dict[str, Any]:
        return {"services": deepcopy(self._world.services)}

    def list_tasks(self, *, desiredStatus: str, family: str = "", **_: Any) -> dict[str, Any]:
        tasks = self._world.tasks if desiredStatus == "RUNNING" else self._world.stopped
        return {"taskArns": [item["taskArn"] for item in tasks if family in item["taskDefinitionArn"]]}

    def describe_tasks(self, *, tasks: list[str], **_: Any) -> dict[str, Any]:
        known = [*self._world.tasks, *self._world.stopped]
        return {"tasks": [item for item in known if item["taskArn"] in tasks]}

    def describe_task_definition(self, *, taskDefinition: str) -> dict[str, Any]:
        family = taskDefinition.rpartition("/")[2].partition(":")[0]
        name = family.removeprefix("updraft-dev-")
        if name not in self._world.containers:
            raise ClientError(
                {"Error": {"Code": "ClientException", "Message": "none"}}, "DescribeTaskDefinition"
            )
        return {
            "taskDefinition": {
                "taskDefinitionArn": f"arn:aws:ecs:::task-definition/{family}:1",
                "family": family,
                "revision": 1,
                "containerDefinitions": [self._world.containers[name]],
            }
        }

    def list_secret_version_ids(self, **_: Any) -> dict[str, Any]:
        return {"Versions": [{"VersionStages": ["AWSCURRENT"], "CreatedDate": self._world.secret_created}]}

    def describe_stacks(self) -> dict[str, Any]:
        return {"Stacks": self._world.stacks}

    def list_instances(self, **_: Any) -> dict[str, Any]:
        return {"Instances": [{"Attributes": {"AWS_INSTANCE_IPV4": item}} for item in self._world.registered]}

    def describe_security_groups(self, **_: Any) -> dict[str, Any]:
        return {"SecurityGroups": [{"IpPermissions": self._world.rules}]}

    def get_function_configuration(self, **_: Any) -> dict[str, Any]:
        return {"Environment": {"Variables": {"UPDRAFT_SECURITY_GROUP_IDS": "sg-airflow"}}}

    def describe_log_groups(self, *, logGroupNamePrefix: str) -> dict[str, Any]:
        found = [name for name in self._world.log_groups if name.startswith(logGroupNamePrefix)]
        return {"logGroups": [{"logGroupName": name} for name in found]}

    def describe_db_instances(self, **_: Any) -> dict[str, Any]:
        return {"DBInstances": [self._world.database]}

    def describe_db_parameters(self, **_: Any) -> dict[str, Any]:
        return {"Parameters": [{"ParameterName": "rds.force_ssl", "ParameterValue": self._world.force_ssl}]}

    def get_metric_statistics(
        self,
        *,
        MetricName: str,
        Statistics: list[str],
        StartTime: datetime,
        **_: Any,
    ) -> dict[str, Any]:
        values = self._world.metrics.get(MetricName, [])
        return {
            "Datapoints": [
                {"Timestamp": StartTime + timedelta(minutes=number), Statistics[0]: value}
                for number, value in enumerate(values)
            ]
        }

    def get_queue_url(self, *, QueueName: str) -> dict[str, Any]:
        return {"QueueUrl": QueueName}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {"VisibilityTimeout": str(self._world.visibility_timeout)}}

    def get_parameter(self, *, Name: str) -> dict[str, Any]:
        return {"Parameter": {"Value": self._world.sleep if "sleep" in Name else self._world.pointer}}

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        if Key not in self._world.bundles:
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")
        return {}

    def get_deployment_group(self, **_: Any) -> dict[str, Any]:
        return {"deploymentGroupInfo": {"lastAttemptedDeployment": {"deploymentId": "d-1"}}}

    def get_deployment(self, **_: Any) -> dict[str, Any]:
        return {"deploymentInfo": self._world.deployment}

    def describe_instances(self, **arguments: Any) -> dict[str, Any]:
        if "InstanceIds" in arguments:
            found = [{"State": {"Name": self._world.bastion_state}}]
        else:
            found = [self._world.nat] if self._world.nat else []
        return {"Reservations": [{"Instances": found}]}

    def describe_instance_information(self, **_: Any) -> dict[str, Any]:
        return {"InstanceInformationList": [{"PingStatus": self._world.bastion_ping}]}

    def list_service_quotas(self, *, ServiceCode: str) -> dict[str, Any]:
        if ServiceCode == "fargate":
            return {
                "Quotas": [
                    {"QuotaName": f"vCPUs of {code}", "Value": value, "QuotaCode": code}
                    for code, value in self._world.vcpus.items()
                ]
            }
        return {
            "Quotas": [
                {"QuotaName": name, "Value": value, "QuotaCode": "L-1"}
                for name, value in self._world.quotas.items()
            ]
        }

    def get_caller_identity(self) -> dict[str, Any]:
        return {"ResponseMetadata": {"HTTPHeaders": {"date": self._world.date}}}

    def describe_file_systems(self, **_: Any) -> dict[str, Any]:
        return {"FileSystems": [self._world.efs]}

    def describe_route_tables(self, **_: Any) -> dict[str, Any]:
        return {"RouteTables": [{"RouteTableId": "rtb-1", "Routes": self._world.routes}]}

    def describe_alarms(self, **_: Any) -> dict[str, Any]:
        return {"MetricAlarms": self._world.alarms}

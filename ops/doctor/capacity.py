"""Room and time: quotas, disks, clocks, routes, workers that stay, alarms."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError, require_awake
from stacks.config import ROOT, EnvironmentConfig

# AWS refuses a signature that is five minutes off; Airflow's tokens allow far less.
MOST_SKEW = timedelta(seconds=30)
LEAST_FREE_MIB = 1024
MOST_EFS_GIB = 50
WATCHED = timedelta(minutes=30)
# vCPUs at once in a region, by the codes of AWS's service quotas: 6 in a new account.
ON_DEMAND_QUOTA = "L-3032A538"
SPOT_QUOTA = "L-36FBB829"


def quotas(account: Account) -> Iterator[Finding]:
    """A new account has a quota of zero for GPU instances: the first training fails."""
    wanted = {
        f"{instance_type} for {kind} job usage": instance_type
        for kind, instance_type in account.config.workflows.instance_types.model_dump().items()
        if kind in ("training", "processing", "transform")
    }
    pages = (
        account.client("service-quotas")
        .get_paginator("list_service_quotas")
        .paginate(ServiceCode="sagemaker")
    )
    for page in pages:
        for quota in page["Quotas"]:
            if quota["QuotaName"] in wanted and quota["Value"] < 1:
                yield Finding(
                    f"the quota '{quota['QuotaName']}' is {quota['Value']:.0f}: SageMaker refuses the job",
                    "ask for more: aws service-quotas request-service-quota-increase --service-code sagemaker "
                    f"--quota-code {quota['QuotaCode']} --desired-value 1",
                )


def fargate(account: Account) -> Iterator[Finding]:
    """A new account has a quota of few vCPUs on Fargate; tasks beyond it never start."""
    wanted = _fargate_vcpus(account.config)
    pages = (
        account.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="fargate")
    )
    for quota in (quota for page in pages for quota in page["Quotas"]):
        services, workers = wanted.get(quota["QuotaCode"], (0.0, 0.0))
        needed = 2 * services + workers
        if quota["Value"] < needed:
            yield Finding(
                f"the quota '{quota['QuotaName']}' is {quota['Value']:g}; the services take {services:g}, twice that "
                f"while a deployment replaces them, and the workers at their most {workers:g}",
                "ask for more: aws service-quotas request-service-quota-increase --service-code fargate "
                f"--quota-code {quota['QuotaCode']} --desired-value {math.ceil(needed)}",
            )


def _fargate_vcpus(config: EnvironmentConfig) -> dict[str, tuple[float, float]]:
    """What the environment's file asks of each quota (its code): by services, and by all that starts for a task."""
    chosen = config.services
    if chosen.control_plane is not None:
        services = chosen.control_plane.cpu
    else:
        separate = (chosen.webserver, chosen.scheduler, chosen.dag_processor, chosen.triggerer)
        services = sum(each.cpu * each.count for each in separate)
    services += chosen.flower.cpu * chosen.flower.count if chosen.flower else 0
    services += config.tracking.size.cpu if config.tracking.enabled else 0
    fleets = [worker for worker in config.workers.values() if worker.capacity == "FARGATE"]
    spot = sum(round(worker.max * worker.spot_percent / 100) * worker.cpu for worker in fleets)
    on_demand = sum(worker.max * worker.cpu for worker in fleets) - spot
    on_demand += config.spark.size.cpu if config.spark.engine == "ecs" else 0
    pets = config.pets.size.cpu * config.pets.count if config.pets and config.pets.platform == "ecs" else 0
    on_spot = chosen.capacity == "FARGATE_SPOT"
    return {
        ON_DEMAND_QUOTA: ((pets + (0 if on_spot else services)) / 1024, on_demand / 1024),
        SPOT_QUOTA: ((services if on_spot else 0) / 1024, spot / 1024),
    }


def clocks(account: Account) -> Iterator[Finding]:
    """This machine's clock, AWS's and the scheduler's agree."""
    answer = account.client("sts").get_caller_identity()
    header = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if header is None:
        raise NotApplicableError("the account's answers carry no date")
    skew = account.now - parsedate_to_datetime(header)
    if abs(skew) > MOST_SKEW:
        yield Finding(
            f"this machine's clock is {skew.total_seconds():+.0f} s off AWS's: requests are refused",
            "synchronise it: timedatectl set-ntp true",
        )
    beat = datetime.fromisoformat(account.airflow.scheduler_heartbeat())
    ahead = beat - account.now
    if ahead > MOST_SKEW:
        yield Finding(
            f"the scheduler's last heartbeat lies {ahead.total_seconds():.0f} s in the future: clocks differ, and "
            "tokens are refused as not yet valid",
            "restart the scheduler's task; on Fargate a new task comes with a right clock",
        )


def disks(account: Account) -> Iterator[Finding]:
    """This checkout's disk has room; releases don't pile up on EFS."""
    free_mib = shutil.disk_usage(ROOT).free // 2**20
    if free_mib < LEAST_FREE_MIB:
        yield Finding(
            f"{free_mib} MiB free at {ROOT}, {LEAST_FREE_MIB} MiB are needed",
            "free some space, for example .updraft/log and cdk.out",
        )
    identifier = account.place.output("storage", "ReleasesFileSystemId")
    [system] = account.client("efs").describe_file_systems(FileSystemId=identifier)["FileSystems"]
    if system["LifeCycleState"] != "available":
        yield Finding(
            f"the file system {identifier} is {system['LifeCycleState']}: no bundle can be read",
            "see its mount targets: aws efs describe-mount-targets --file-system-id " + identifier,
        )
    size_gib = system["SizeInBytes"]["Value"] / 2**30
    if size_gib > MOST_EFS_GIB:
        yield Finding(
            f"releases take {size_gib:.0f} GiB on {identifier}",
            "remove those that no run needs from /mnt/releases on the bastion",
        )


def routes(account: Account) -> Iterator[Finding]:
    """No route leads to a NAT that was stopped or deleted."""
    require_awake(account)
    vpc = account.place.output("network", "VpcId")
    answer = account.client("ec2").describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    for table in answer["RouteTables"]:
        for route in table["Routes"]:
            if route.get("State") == "blackhole":
                through = (
                    route.get("NatGatewayId") or route.get("InstanceId") or route.get("NetworkInterfaceId")
                )
                yield Finding(
                    f"the route to {route.get('DestinationCidrBlock', '?')} in {table['RouteTableId']} leads to "
                    f"{through}, which is gone or stopped: tasks can't reach AWS",
                    "start the NAT instance again (aws ec2 start-instances), or deploy the network stack",
                )
    instances = account.client("ec2").describe_instances(
        Filters=[
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "instance-state-name", "Values": ["stopping", "stopped"]},
        ]
    )["Reservations"]
    for instance in (instance for item in instances for instance in item["Instances"]):
        if instance.get("SourceDestCheck") is False:
            yield Finding(
                f"the NAT instance {instance['InstanceId']} is {instance['State']['Name']}: tasks can't reach AWS",
                f"start it: aws ec2 start-instances --instance-ids {instance['InstanceId']}",
            )


def workers(account: Account) -> Iterator[Finding]:
    """Idle workers leave, and a queue that has work gets workers."""
    require_awake(account)
    for queue, settings in account.config.workers.items():
        dimensions = {"environment": account.config.environment, "queue": queue}

        def values(name: str, statistic: str, dimensions: dict[str, str] = dimensions) -> list[float]:
            return account.metric(account.config.project, name, dimensions, statistic, over=WATCHED)

        live = values("LiveWorkers", "Minimum")
        if not live:
            yield Finding(
                f"queue {queue}: the load metric has published nothing for {WATCHED.total_seconds() / 60:.0f} minutes; "
                "no worker starts",
                "read why: aws logs tail on the load metric's log group (output LoadMetricFunctionName)",
            )
            continue
        # Half an hour is enough for every idle worker to go, whatever idle_seconds says below that.
        enough = WATCHED.total_seconds() / 60 - 5
        busy = max(values("RunningTasks", "Maximum") + values("QueuedTasks", "Maximum"))
        if len(live) >= enough and min(live) > settings.min and busy == 0:
            yield Finding(
                f"queue {queue} has kept {min(live):.0f} idle workers for half an hour, its minimum is {settings.min}",
                f"see why they stay: ./updraft logs worker-{queue} --environment {account.config.environment}",
            )
        queued, wanted = values("QueuedTasks", "Minimum"), values("WantedWorkers", "Minimum")
        if len(live) >= enough and min(queued) > 0 and min(wanted) > 0 and max(live) == 0:
            yield Finding(
                f"queue {queue} has had tasks waiting and no worker for half an hour",
                "see why none starts: the load metric's log, the account's Fargate quota, and the NAT",
            )


def alarms(account: Account) -> Iterator[Finding]:
    """No alarm of this environment is ringing."""
    pages = (
        account.client("cloudwatch")
        .get_paginator("describe_alarms")
        .paginate(AlarmNamePrefix=f"{account.config.prefix}-", StateValue="ALARM")
    )
    for page in pages:
        for alarm in page["MetricAlarms"]:
            yield Finding(
                f"alarm {alarm['AlarmName']} is ringing: {alarm.get('AlarmDescription', 'no description')}",
                f"why: {alarm.get('StateReason', 'no reason given')}",
            )


CHECKS = (
    Check("quotas", "SageMaker quotas of the configured instance types", quotas),
    Check("fargate", "Fargate quotas beside services and workers", fargate),
    Check("clocks", "this machine's clock, AWS's and the scheduler's", clocks),
    Check("disks", "free disk here, and the shared file system", disks),
    Check("routes", "routes and NAT instances", routes),
    Check("workers", "workers beside their load", workers),
    Check("alarms", "alarms that are ringing", alarms),
)

"""What bills by the piece, the gibibyte or the call: secrets, keys, logs, metrics, alarms, functions, buckets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ops.console import OperatorError
from ops.cost.model import HOURS_PER_MONTH, Environment, LineItem, Resource, Usage
from ops.prices import price

# How long a scheduled function works each time; one that is not named works a few seconds.
SECONDS_PER_INVOCATION = {"lambdas.load_metric.handler.handler": 50.0}
FEW_SECONDS = 5.0
LOAD_METRIC = "lambdas.load_metric.handler.handler"
METRICS_PER_QUEUE = 7
CALLS_PER_HOUR = 60
ALLOWED_METRICS = "AIRFLOW__METRICS__METRICS_ALLOW_LIST"
UNITS = {"minute": 60.0, "minutes": 60.0, "hour": 3600.0, "hours": 3600.0, "day": 86_400.0, "days": 86_400.0}


def secret(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A secret; its reads, a few at each task's start, cost nothing to speak of."""
    what = resource.properties.get("Description", resource.logical_id)
    if not isinstance(what, str):
        what = resource.logical_id
    yield resource.item(f"secret: {what}", monthly_usd=price("usd_per_month", "secret"))


def key(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A customer-managed key."""
    yield resource.item("KMS key", monthly_usd=price("usd_per_month", "kms_key"))


def log_group(resource: Resource, environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """A service's log by the hour that it runs; functions write next to nothing."""
    name = resource.properties.get("LogGroupName", "")
    services = {item.properties["ServiceName"] for item in environment.of_type("AWS::ECS::Service")}
    if isinstance(name, str) and name.rpartition("/")[2] in services:
        gib = usage.log_gib_per_service_hour
        yield resource.item(
            f"log {name}",
            hourly_usd=gib * price("usd_per_gib", "log_ingestion"),
            monthly_usd=gib * usage.awake_hours * price("storage_usd_per_gib_month", "log_archive"),
        )


def bucket(resource: Resource, _environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """A bucket's storage."""
    yield resource.item(
        f"bucket {resource.logical_id}, {usage.bucket_gib:g} GiB",
        monthly_usd=usage.bucket_gib * price("storage_usd_per_gib_month", "s3"),
    )


def file_system(resource: Resource, _environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """EFS storage."""
    yield resource.item(
        f"file system, {usage.file_system_gib:g} GiB",
        monthly_usd=usage.file_system_gib * price("storage_usd_per_gib_month", "efs"),
    )


def hosted_zone(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """The DNS zone behind a Cloud Map namespace."""
    yield resource.item("private DNS zone", monthly_usd=price("usd_per_month", "hosted_zone"))


def alarm(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """An alarm bills for each metric that it looks at."""
    metrics = [item for item in resource.properties.get("Metrics", []) if "MetricStat" in item]
    periods = [item["MetricStat"]["Period"] for item in metrics] or [resource.properties.get("Period", 300)]
    fast = min(int(period) for period in periods) < 60
    each = price("usd_per_month", "high_resolution_alarm" if fast else "alarm")
    yield resource.item(f"alarm {resource.logical_id}", monthly_usd=len(periods) * each)


def composite_alarm(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A composite alarm."""
    yield resource.item(f"alarm {resource.logical_id}", monthly_usd=price("usd_per_month", "composite_alarm"))


def dashboard(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A dashboard."""
    yield resource.item("dashboard", monthly_usd=price("usd_per_month", "dashboard"))


def function(resource: Resource, environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """A function that a schedule invokes; the others only run while a deployment does."""
    handler = resource.properties.get("Handler", "")
    per_hour = sum(_invocations_per_hour(resource, environment))
    if not per_hour:
        return
    seconds = SECONDS_PER_INVOCATION.get(handler, FEW_SECONDS)
    gib = int(resource.properties.get("MemorySize", 128)) / 1024
    architecture = resource.properties.get("Architectures", ["x86_64"])[0]
    each = gib * seconds * price("lambda_usd_per_gib_second", architecture)
    each += price("usd_per_million", "lambda_request") / 1e6
    sleeps = handler == LOAD_METRIC
    hourly = per_hour * each
    yield resource.item(
        f"function {handler.split('.')[1] if handler.count('.') > 1 else handler}",
        hourly_usd=hourly if sleeps else 0.0,
        monthly_usd=0.0 if sleeps else hourly * HOURS_PER_MONTH,
    )
    if handler == LOAD_METRIC:
        yield from _metrics(resource, environment, usage)


def _metrics(resource: Resource, environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    queues = sum(
        "-worker-" in str(item.properties["Family"])
        for item in environment.of_type("AWS::ECS::TaskDefinition")
    )
    yield resource.item(
        f"{queues * METRICS_PER_QUEUE} custom metrics",
        hourly_usd=queues * METRICS_PER_QUEUE * price("usd_per_month", "custom_metric") / HOURS_PER_MONTH,
    )
    yield resource.item(
        "PutMetricData", hourly_usd=CALLS_PER_HOUR * price("usd_per_million", "put_metric_data") / 1e6
    )


def airflow_metrics(environment: Environment) -> Iterator[LineItem]:
    """Airflow's own metrics, which containers write into their logs: each name bills while it is written."""
    names = {
        name
        for resource in environment.of_type("AWS::ECS::TaskDefinition")
        for container in resource.properties["ContainerDefinitions"]
        for item in container.get("Environment", [])
        if item["Name"] == ALLOWED_METRICS
        for name in item["Value"].split(",")
    }
    if names:
        each = price("usd_per_month", "custom_metric") / HOURS_PER_MONTH
        yield LineItem(f"{len(names)} metrics of Airflow", "", "", hourly_usd=len(names) * each)


def _invocations_per_hour(resource: Resource, environment: Environment) -> Iterator[float]:
    for rule in environment.of_type("AWS::Events::Rule"):
        targets = [
            environment.referred(rule.stack, item["Arn"]) for item in rule.properties.get("Targets", [])
        ]
        if resource in targets and "ScheduleExpression" in rule.properties:
            yield times_per_hour(rule.properties["ScheduleExpression"])
    for schedule in environment.of_type("AWS::Scheduler::Schedule"):
        if environment.referred(schedule.stack, schedule.properties["Target"]["Arn"]) == resource:
            yield times_per_hour(schedule.properties["ScheduleExpression"])


def times_per_hour(expression: str) -> float:
    """How often a `rate(…)` fires; a `cron(…)` counts as one a day unless its minutes or hours say more."""
    if found := re.fullmatch(r"rate\((\d+) (\w+)\)", expression):
        return 3600 / (int(found[1]) * UNITS[found[2]])
    if found := re.fullmatch(r"cron\((\S+) (\S+) .*\)", expression):
        minutes, hours = found[1], found[2]
        if "*" not in minutes and "/" not in minutes:
            return 1.0 if hours.startswith("*") else 1 / 24
        step = int(minutes.partition("/")[2] or 1)
        return 60 / step if hours.startswith("*") else 60 / step / 24
    if expression.startswith("at("):
        return 0.0
    raise OperatorError(f"schedule {expression!r} is not of the form rate(…), cron(…) or at(…)")


def schedule(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """EventBridge Scheduler bills for invocations (rules on a schedule are free)."""
    calls = times_per_hour(resource.properties["ScheduleExpression"]) * HOURS_PER_MONTH
    yield resource.item(
        f"schedule {resource.logical_id}",
        monthly_usd=calls * price("usd_per_million", "scheduler_invocation") / 1e6,
    )


def queue(resource: Resource, environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """SQS bills for requests: nothing while no worker polls."""
    queues = max(1, sum(1 for _ in environment.of_type("AWS::SQS::Queue")) - 1)
    if "RedrivePolicy" not in resource.properties:
        return
    worker_hours = usage.task_hours * usage.slot_hours_per_task_hour / queues
    requests = worker_hours * usage.sqs_requests_per_worker_hour
    yield resource.item(
        f"queue {resource.logical_id}", load_usd=requests * price("usd_per_million", "sqs_request") / 1e6
    )


def flow_log(resource: Resource, _environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """A VPC's flow log, at a tenth of what goes through the NAT."""
    yield resource.item(
        "flow log", hourly_usd=0.1 * usage.nat_gib_per_hour * price("usd_per_gib", "flow_log")
    )


def notebook(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A notebook instance is made stopped: its volume bills; its hours are the user's own."""
    gib = int(resource.properties.get("VolumeSizeInGB", 5))
    yield resource.item(
        f"notebook's volume, {gib} GiB",
        monthly_usd=gib * price("storage_usd_per_gib_month", "sagemaker_notebook"),
    )

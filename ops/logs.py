"""Reads the logs of services from CloudWatch and those of DAG runs from Airflow."""

from __future__ import annotations

from botocore.exceptions import ClientError

from ops.console import OperatorError
from ops.target import Target


def read(target: Target, what: str, *, lines: int) -> list[str]:
    """The newest lines of a service or of a DAG run; raises OperatorError when there is neither."""
    group = f"/{target.config.project}/{target.name}/{what}"
    try:
        return _service_lines(target, group, lines)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise OperatorError(f"CloudWatch did not give the logs of {what}: {error}") from error
    return _run_lines(target, what, lines)


def _service_lines(target: Target, group: str, lines: int) -> list[str]:
    client = target.client("logs")
    streams = client.describe_log_streams(
        logGroupName=group, orderBy="LastEventTime", descending=True, limit=3
    )
    events = []
    for stream in streams["logStreams"]:
        answer = client.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], limit=min(lines, 10_000)
        )
        events += answer["events"]
    events.sort(key=lambda event: event["timestamp"])
    return [event["message"].rstrip() for event in events[-lines:]]


def _run_lines(target: Target, run_id: str, lines: int) -> list[str]:
    airflow = target.airflow()
    for dag in airflow.dags():
        try:
            tasks = airflow.task_instances(dag["dag_id"], run_id)
        except OperatorError:
            continue
        tasks.sort(key=lambda task: task["start_date"] or "9")
        found = [
            f"{task['task_id']} | {line}"
            for task in tasks
            if task["try_number"]
            for line in airflow.task_log(dag["dag_id"], run_id, task["task_id"], task["try_number"])
        ]
        return found[-lines:]
    raise OperatorError(
        f"'{run_id}' is neither a service (scheduler, webserver, worker-default, …) nor a run of any DAG"
    )

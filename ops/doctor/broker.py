"""The broker: messages outlive the longest task, and Flower has something to see."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError


def visibility_timeout(account: Account) -> Iterator[Finding]:
    """A message that becomes visible again while its task still runs is given to a second worker."""
    if account.config.broker.kind != "sqs":
        raise NotApplicableError("only SQS has a visibility timeout of its own")
    sqs = account.client("sqs")
    seconds, task = _longest_task(account)
    for queue in account.config.workers:
        url = sqs.get_queue_url(QueueName=f"{account.config.prefix}-{queue}")["QueueUrl"]
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        timeout = int(answer["Attributes"]["VisibilityTimeout"])
        wanted = account.config.broker.visibility_timeout_seconds
        if timeout < wanted:
            yield Finding(
                f"queue {queue} has a visibility timeout of {timeout} s, the environment's file says {wanted} s",
                f"deploy again: ./updraft deploy --environment {account.config.environment}",
            )
        if timeout < seconds:
            yield Finding(
                f"queue {queue} gives a message to a second worker after {timeout} s, but {task} takes {seconds:.0f} s",
                "raise broker.visibility_timeout_seconds (at most 43200), make the task deferrable, or split it",
            )


def _longest_task(account: Account) -> tuple[float, str]:
    """The seconds of the longest task that has run, and what it was."""
    longest = account.airflow.longest_task()
    if longest is None:
        return 0.0, "no task"
    return float(longest["duration"]), f"{longest['dag_id']}.{longest['task_id']}"


def flower(account: Account) -> Iterator[Finding]:
    """SQS has neither remote control nor events: Flower would show nothing."""
    brokers = {
        item["value"]
        for _, container in account.live_containers()
        for item in container.get("environment", [])
        if item["name"] == "UPDRAFT_BROKER"
    }
    runs = any(service["serviceName"] == "flower" for service in account.services)
    if runs and "sqs" in brokers | {account.config.broker.kind}:
        yield Finding(
            "Flower runs beside the SQS broker, where it sees nothing (no remote control, no events)",
            'remove services.flower from the environment\'s file, or set broker.kind = "redis"; then deploy',
        )
    if len(brokers) > 1:
        yield Finding(
            f"services use different brokers: {', '.join(sorted(brokers))}; tasks are queued where nobody looks",
            f"deploy again: ./updraft deploy --environment {account.config.environment}",
        )


CHECKS = (
    Check("visibility-timeout", "SQS's visibility timeout beside the longest task", visibility_timeout),
    Check("flower", "Flower beside its broker", flower),
)

"""Tells people of a failed DAG run: `@dag(on_failure_callback=notify_failure)`.

The dag-processor calls it once for each failed run, whatever ended it: a task, a lost worker or the run's time-out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import boto3
from botocore.config import Config

from runtime.settings import workflow_settings

FAILED = ("failed", "upstream_failed")
# SNS takes ASCII without line breaks, at most so long: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
LONGEST_SUBJECT = 100
# A callback has seconds; a run's failure is also in Airflow itself.
PATIENCE = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 3})
log = logging.getLogger(__name__)


def notify_failure(context: Mapping[str, Any]) -> None:
    """Publish what failed, and where to look, to the environment's topic of failed runs."""
    topic = workflow_settings().failures_topic_arn
    if topic is None:
        log.warning("nobody is told of the failure: the workflows stack has no topic yet; deploy it again")
        return
    subject, message = compose(context, states=_states(context), base_url=_base_url())
    boto3.client("sns", config=PATIENCE).publish(TopicArn=topic, Subject=subject, Message=message)
    log.info("told of the failure: %s", subject)


def compose(
    context: Mapping[str, Any], *, states: Mapping[str, str | None], base_url: str
) -> tuple[str, str]:
    """Subject and message of a failed run, from its tasks' states by task id, `{task id}_{map index}` of a mapped one."""
    dag_id, run_id = context["dag"].dag_id, str(context["run_id"])
    environment = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}"
    failed = sorted(task_id for task_id, state in states.items() if state == FAILED[0])
    skipped = sorted(task_id for task_id, state in states.items() if state == FAILED[1])
    what = ", ".join(failed) or str(context.get("reason") or "unknown")
    run_url = f"{base_url.rstrip('/')}/dags/{quote(dag_id)}/runs/{quote(run_id)}"
    lines = [f"DAG {dag_id}, run {run_id}, in {environment}: {context.get('reason') or 'failed'}", ""]
    lines += [f"failed: {task_id}  {run_url}/tasks/{_page(context['dag'], task_id)}" for task_id in failed]
    if skipped:
        lines.append(f"did not run: {', '.join(skipped)}")
    lines += ["", f"The run: {run_url}", f"Its logs: ./updraft logs {run_id}"]
    subject = f"[{environment}] {dag_id} failed: {what}".encode("ascii", "replace").decode()
    return " ".join(subject.split())[:LONGEST_SUBJECT], "\n".join(lines)


def _page(dag: Any, task_id: str) -> str:
    """The end of the address of a task in the UI; an id that is no task of the DAG is a mapped instance's."""
    mapped, _, index = task_id.rpartition("_")
    if not dag.has_task(task_id) and dag.has_task(mapped) and index.isdigit():
        return f"{quote(mapped)}/mapped/{index}"
    return quote(task_id)


def _states(context: Mapping[str, Any]) -> dict[str, str | None]:
    """States by task id; only the task that the callback came with where the others can't be asked for."""
    instance = context.get("ti")
    if instance is None:
        return {}
    try:
        run_id = context["run_id"]
        return dict(instance.get_task_states(dag_id=instance.dag_id, run_ids=[run_id])[run_id])
    except Exception as error:
        log.warning("the states of the run's tasks are not known: %s", error)
        return {instance.task_id: FAILED[0]}


def _base_url() -> str:
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="http://localhost:8080/"))

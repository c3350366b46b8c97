"""The main job: from nothing to a model that a SageMaker training made, in one command."""

from __future__ import annotations

import time
from typing import Any

from ops import delivery, laptop
from ops.airflow_api import AirflowApi
from ops.bootstrap import ROOT
from ops.console import say, step
from ops.engine import Engine
from ops.target import local_paths, target_of

DAG_ID = "sagemaker_training"
# A demo that was killed left its run going: the next one finds it by this prefix.
RUN_PREFIX = "demo__"
RUN_SECONDS = 600


def run(environment: str = "local", with_engine: Engine | None = None) -> dict[str, Any]:
    """Bring the platform up, push the DAGs, run the workflow to its end and return what it came to."""
    started = time.monotonic()
    platform = laptop.up(environment, with_engine)
    target = target_of(environment)
    pushed = delivery.push(target, ROOT / "dags")
    airflow = target.airflow()
    run_id = airflow.active_run(DAG_ID, prefix=RUN_PREFIX) or _trigger(airflow)
    with step(f"running {DAG_ID}"):
        finished = airflow.wait(
            DAG_ID,
            run_id,
            timeout_seconds=RUN_SECONDS,
            on_change=lambda task, state: say(f"  {task}: {state}"),
        )
    result: dict[str, Any] = {
        "deploy_seconds": platform["deploy_seconds"],
        "healthy_seconds": platform["healthy_seconds"],
        "push": pushed,
        "dag_run": {"dag_id": DAG_ID, "run_id": run_id, "state": finished["state"]},
        "urls": platform["urls"],
        "credentials": target.credentials(),
        "memory_mib": laptop.memory_mib(local_paths()),
    }
    if finished["state"] == "success":
        summary = airflow.xcom(DAG_ID, run_id, "summary")
        result["training_job"] = describe_training(target.client("sagemaker"), summary["training_job_name"])
        result["model"] = {key: summary[key] for key in ("uri", "metric", "value", "baseline")}
    result["total_seconds"] = round(time.monotonic() - started, 1)
    return result


def _trigger(airflow: AirflowApi) -> str:
    run_id: str = airflow.trigger(DAG_ID, {}, run_id=f"{RUN_PREFIX}{time.strftime('%Y%m%dT%H%M%S')}")[
        "dag_run_id"
    ]
    return run_id


def describe_training(sagemaker: Any, name: str) -> dict[str, Any]:
    """What a training job was, how long it was billed and what that costs at list price."""
    from ops.prices import sagemaker_usd_per_hour

    job = sagemaker.describe_training_job(TrainingJobName=name)
    instance_type = job["ResourceConfig"]["InstanceType"]
    billable_seconds = job.get("BillableTimeInSeconds", 0)
    return {
        "name": name,
        "status": job["TrainingJobStatus"],
        "instance_type": instance_type,
        "started_at": job["TrainingStartTime"].isoformat(),
        "ended_at": job["TrainingEndTime"].isoformat(),
        "billable_seconds": billable_seconds,
        "cost_usd": round(sagemaker_usd_per_hour(instance_type) * billable_seconds / 3600, 4),
    }


def readable(result: dict[str, Any]) -> str:
    """The demo's result for a person."""
    lines = [f"{DAG_ID} {result['dag_run']['run_id']}: {result['dag_run']['state']}"]
    if job := result.get("training_job"):
        lines += [
            f"training   {job['name']} on {job['instance_type']}: {job['status']}",
            f"           ran {job['billable_seconds']} billable seconds, gone at {job['ended_at']}, "
            f"would have cost ${job['cost_usd']}",
        ]
    if model := result.get("model"):
        lines += [
            f"model      {model['uri']}",
            f"           {model['metric']} {model['value']:.3f} on flights it never saw; baseline {model['baseline']:.3f}",
        ]
    for name, url in result["urls"].items():
        login = result["credentials"].get(name)
        lines.append(
            f"{name:<10} {url}"
            + (f"  user {login['username']}, password {login['password']}" if login else "")
        )
    lines.append("Stop it with ./updraft down; it comes back with ./updraft up.")
    return "\n".join(lines)

"""One task that waits for a SageMaker job, for each operator, mode and kind of time-out that the benchmark looks at."""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import product
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator
from airflow.sdk import DAG, Param

from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.settings import WorkflowSettings, workflow_settings

TASK_TIMEOUT, RUN_TIMEOUT = timedelta(seconds=25), timedelta(seconds=120)
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "deleted": ({}, {}),
    "task_timeout": ({"execution_timeout": TASK_TIMEOUT}, {}),
    "run_timeout": ({}, {"dagrun_timeout": RUN_TIMEOUT}),
}
PROGRAM = (
    "import sys, time; [(print('second', s, flush=True), time.sleep(1)) for s in range(int(sys.argv[1]))]"
)


def processing_request(
    settings: WorkflowSettings | None, *, seconds: Any, role_arn: str = "", image: str = ""
) -> dict[str, Any]:
    """A processing job that counts seconds; role and image come from the settings, or as templates."""
    return {
        "RoleArn": role_arn or (settings and settings.role_arn),
        "AppSpecification": {
            "ImageUri": image or (settings and settings.training_image),
            "ContainerEntrypoint": ["python", "-c", PROGRAM, str(seconds)],
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 1800},
    }


def prefix() -> str:
    """What the names of jobs begin with that tasks of this environment may make."""
    return f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}"


def stock_config(name: str) -> dict[str, Any]:
    """The same for the provider's operator, which wants a name.

    It makes a taken name unique by the second; runs that start together would take each other's.
    """
    made = processing_request(
        None,
        seconds="{{ params.seconds }}",
        role_arn="{{ settings().role_arn }}",
        image="{{ settings().training_image }}",
    )
    return made | {
        "ProcessingJobName": "{{ prefix() }}-stock-" + name + "-{{ macros.uuid.uuid4().hex[:6] }}",
        "Tags": [
            {"Key": "updraft:dag", "Value": "{{ dag.dag_id }}"},
            {"Key": "updraft:run", "Value": "{{ run_id }}"},
        ],
    }


for who, mode, (variant, (task_options, dag_options)) in product(
    ("ours", "stock"), ("sync", "deferrable"), VARIANTS.items()
):
    with DAG(
        f"leak_{who}_{mode}_{variant}",
        schedule=None,
        catchup=False,
        max_active_runs=100,
        max_active_tasks=100,
        params={"seconds": Param(60, type="integer", minimum=1)},
        user_defined_macros={"settings": workflow_settings, "prefix": prefix},
        default_args={"owner": "benchmark", "retries": 1, "retry_delay": timedelta(seconds=1)},
        **dag_options,
    ) as dag:
        if who == "ours":
            SageMakerJobOperator(
                task_id="job",
                kind="processing",
                request=processing_request,
                op_kwargs={"seconds": "{{ params.seconds }}"},
                deferrable=mode == "deferrable",
                **task_options,
            )
        else:
            SageMakerProcessingOperator(
                task_id="job",
                config=stock_config(f"{mode}-{variant}".replace("_", "-")),
                deferrable=mode == "deferrable",
                check_interval=2,
                max_attempts=900,
                **task_options,
            )

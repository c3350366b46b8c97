"""What the flights' pipelines have in common: the matrices before, evaluation and registration after."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context, task, task_group

from flights import jobs
from flights.grid import SAMPLE
from runtime.dag_defaults import default_args, run_prefix
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.settings import workflow_settings

# Everything of a run lies here in the data bucket.
PREFIX = run_prefix("flights")
DEFAULT_ARGS = default_args(
    "data-science",
    # Of a SageMaker job with its wait for an instance, which is not part of the job's own MaxRuntime.
    execution_timeout=timedelta(hours=2),
)
EXPERIMENT = "flights"


@task_group(group_id="data")
def prepared_flights(prefix: str) -> None:
    """Extract, check, split by time, and make the matrices that every training reads."""

    @task(execution_timeout=timedelta(minutes=15))
    def extract(prefix: str) -> dict[str, Any]:
        from flights import etl

        return etl.extract(sample=SAMPLE, bucket=workflow_settings().data_bucket, prefix=prefix)

    @task(execution_timeout=timedelta(minutes=15))
    def split(prefix: str) -> dict[str, int]:
        from flights import etl

        return etl.split(bucket=workflow_settings().data_bucket, prefix=prefix)

    prepared = prepare(prefix)
    extract(prefix) >> split(prefix) >> prepared


def prepare(prefix: str) -> SageMakerJobOperator:
    """The matrices of a run's splits."""
    return SageMakerJobOperator(
        task_id="prepare", kind="processing", request=jobs.prepare, op_kwargs={"prefix": prefix}
    )


def evaluate(prefix: str, candidates: dict[str, Any]) -> SageMakerJobOperator:
    """Candidates (artifact URIs by name) against the baseline, on the test flights that no training saw."""
    return SageMakerJobOperator(
        task_id="evaluate",
        kind="processing",
        request=jobs.evaluate,
        op_kwargs={"prefix": prefix, "candidates": candidates},
    )


@task(execution_timeout=timedelta(minutes=5))
def open_search(params: dict[str, Any] | None = None) -> str | None:
    """The search's own MLflow run, which each trial is a child of; returns its id."""
    from runtime import experiments

    context = get_current_context()
    return experiments.start_run(
        context,
        experiment=EXPERIMENT,
        name=f"{context['dag'].dag_id} {context['run_id']}",
        parameters={f"grid.{name}": values for name, values in (params or {})["grid"].items()},
    )


@task(execution_timeout=timedelta(minutes=5))
def close_search(parent_id: str | None, registered: dict[str, Any] | None) -> None:
    """End the search's run, as failed when nothing was registered."""
    from runtime import experiments

    experiments.end_run(parent_id, succeeded=registered is not None)


@task(execution_timeout=timedelta(minutes=10))
def register(chosen: dict[str, Any], trained: dict[str, Any], mlflow_run_id: str | None) -> dict[str, Any]:
    """The chosen model in SageMaker's registry and in MLflow's, each naming the other.

    `trained` is what its training returned. A repetition makes nothing twice, and another training another version.
    """
    from flights import registry
    from runtime import experiments

    settings, model_uri = workflow_settings(), trained["model_uri"]
    registered = registry.register(
        settings,
        name=trained["name"],
        model_uri=model_uri,
        chosen=chosen,
        context=get_current_context(),
    )
    version = experiments.register_model(
        mlflow_run_id,
        name=settings.model_package_group,
        source=model_uri,
        tags={"model_package_arn": registered["model_package_arn"]},
        description=f"AUC {chosen['value']:.4f}, baseline {chosen['baseline']:.4f}",
    )
    experiments.record(
        mlflow_run_id,
        tags={
            "model_package_arn": registered["model_package_arn"],
            "registered_model": f"{settings.model_package_group}/{version}",
        },
    )
    return {
        **registered,
        "uri": model_uri,
        "metric": chosen["metric"],
        "value": chosen["value"],
        "baseline": chosen["baseline"],
        "mlflow_run_id": mlflow_run_id,
        "mlflow_model": settings.model_package_group if version else None,
        "mlflow_version": version,
    }

"""### Will a flight arrive late?

Trains, tunes, evaluates and registers a model on SageMaker, then predicts in a batch.

**Schedule:** none; started by hand, by `./updraft run sagemaker_training`, or by the REST API with a `conf`.

**Flow:** extract → split → prepare (processing) → train (GPU) → tune → evaluate (processing) → gate → register →
transform → summary. The GPU instance is gone when the training job ends. A model that is no better than the baseline,
or below the threshold, fails at the gate and is not registered.

**When it fails:** a data check names what is wrong with the source; a SageMaker job names its FailureReason, and its
log is in CloudWatch under `/aws/sagemaker/`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from flights import jobs, stages
from flights.stages import PREFIX
from runtime.lineage.notes import note
from runtime.notify import notify_failure
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.registry import read_evaluation
from runtime.settings import workflow_settings


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["sagemaker", "training"],
    doc_md=__doc__,
    dagrun_timeout=timedelta(hours=4),
    on_failure_callback=notify_failure,
    default_args=stages.DEFAULT_ARGS,
    params={
        "sample": Param(
            60_000, type="integer", minimum=5_000, maximum=300_000, description="Flights to learn from"
        ),
        "rounds": Param(60, type="integer", minimum=1, maximum=2_000, description="Rounds of boosting"),
        "max_depth": Param(6, type="integer", minimum=1, maximum=16, description="Depth of each tree"),
        "eta": Param(0.15, type="number", exclusiveMinimum=0, maximum=1, description="Learning rate"),
        "tuning_jobs": Param(2, type="integer", minimum=1, maximum=20, description="Trainings in the search"),
        "threshold": Param(
            0.62, type="number", minimum=0.5, maximum=1, description="Least AUC of a good model"
        ),
        "instance_type": Param(
            None, type=["null", "string"], pattern=r"^ml\.", description="Instead of the environment's"
        ),
    },
)
def sagemaker_training() -> None:
    @task(execution_timeout=timedelta(minutes=15))
    def extract(prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        from flights import etl

        bucket = workflow_settings().data_bucket
        extracted = etl.extract(sample=(params or {})["sample"], bucket=bucket, prefix=prefix)
        # Each run has a place of its own, so that it can't be declared as an outlet.
        note(destinations=[f"s3://{bucket}/{prefix}/raw/flights.csv"])
        return extracted

    @task(execution_timeout=timedelta(minutes=15))
    def split(prefix: str) -> dict[str, int]:
        from flights import etl

        bucket = workflow_settings().data_bucket
        parts = etl.split(bucket=bucket, prefix=prefix)
        note(
            sources=[f"s3://{bucket}/{prefix}/raw/flights.csv"],
            destinations=[f"s3://{bucket}/{prefix}/input/{name}.csv" for name in parts],
        )
        return parts

    @task(execution_timeout=timedelta(minutes=5))
    def gate(prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        from flights import registry

        report = read_evaluation(workflow_settings(), prefix)
        return registry.choose(report, threshold=(params or {})["threshold"])

    @task(execution_timeout=timedelta(minutes=5))
    def register(chosen: dict[str, Any], trained: dict[str, Any], tuned: dict[str, Any]) -> dict[str, str]:
        from flights import registry

        model = {"trained": trained, "tuned": tuned}[chosen["candidate"]]
        return registry.register(
            workflow_settings(),
            name=model["name"],
            model_uri=model["model_uri"],
            chosen=chosen,
            context=get_current_context(),
        ) | {"uri": model["model_uri"]}

    @task(execution_timeout=timedelta(minutes=5))
    def summary(
        chosen: dict[str, Any],
        registered: dict[str, str],
        trained: dict[str, Any],
        transformed: dict[str, Any],
    ) -> dict[str, Any]:
        return {
            **registered,
            "metric": chosen["metric"],
            "value": chosen["value"],
            "baseline": chosen["baseline"],
            "training_job_name": trained["name"],
            "billable_seconds": trained["billable_seconds"],
            "predictions_uri": transformed["output_uri"],
        }

    extracted = extract(PREFIX)
    parts = split(PREFIX)
    prepared = stages.prepare(PREFIX)
    trained = SageMakerJobOperator(
        task_id="train",
        kind="training",
        request=jobs.train,
        op_kwargs={
            "prefix": PREFIX,
            "instance_type": "{{ params.instance_type or '' }}",
            "hyperparameters": {name: f"{{{{ params.{name} }}}}" for name in ("rounds", "max_depth", "eta")},
        },
    )
    tuned = SageMakerJobOperator(
        task_id="tune",
        kind="tuning",
        request=jobs.tune,
        op_kwargs={
            "prefix": PREFIX,
            "jobs": "{{ params.tuning_jobs | int }}",
            "rounds": "{{ params.rounds }}",
        },
    )
    evaluated = stages.evaluate(
        PREFIX, {"trained": trained.output["model_uri"], "tuned": tuned.output["model_uri"]}
    )
    chosen = gate(PREFIX)
    registered = register(chosen, trained.output, tuned.output)
    transformed = SageMakerJobOperator(
        task_id="transform",
        kind="transform",
        request=jobs.transform,
        op_kwargs={"prefix": PREFIX, "model_name": registered["model_name"]},
    )
    extracted >> parts >> prepared >> trained >> tuned >> evaluated >> chosen
    summary(chosen, registered, trained.output, transformed.output)


sagemaker_training()

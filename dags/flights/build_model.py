"""### Build one model with given hyper-parameters

Trains the flights model with the `max_depth` and `n_estimators` that the run is started with, compares it with the
baseline on flights that it never saw, and registers it in SageMaker's registry and in MLflow's.

**Schedule:** none; started from the UI's form, by `./updraft run build_model --conf '{"max_depth": 6,
"n_estimators": 80}'`, by `airflowctl`, or by the REST API. A value out of its range, and a parameter that is not one of
the two, is refused before there is a run.

**Flow:** data (extract → split → prepare) → train → evaluate → record → gate → register. `record` writes parameters,
metrics and the SageMaker job to an MLflow run of the experiment `flights`, also for a model that the gate stops.

**When it fails:** a data check names what is wrong with the source; a SageMaker job names its FailureReason; the gate
says how far a model is from the baseline. Nothing is registered then.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from flights import grid, jobs, stages
from flights.stages import PREFIX
from runtime.notify import notify_failure
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.registry import read_evaluation


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=2,
    tags=["sagemaker", "training", "mlflow"],
    doc_md=__doc__,
    on_failure_callback=notify_failure,
    dagrun_timeout=timedelta(hours=2),
    default_args=stages.DEFAULT_ARGS,
    params={
        "max_depth": grid.one_value(6, grid.MAX_DEPTH, "Depth of each tree"),
        "n_estimators": grid.one_value(60, grid.N_ESTIMATORS, "Number of trees"),
    },
)
def build_model() -> None:
    @task(execution_timeout=timedelta(minutes=10))
    def record(trained: dict[str, Any], prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        from runtime import experiments
        from runtime.settings import workflow_settings

        context, report = get_current_context(), read_evaluation(workflow_settings(), prefix)
        scores = report["candidates"]["built"]
        run_id = experiments.start_run(
            context, experiment=stages.EXPERIMENT, name=f"build_model {context['run_id']}", parameters=params
        )
        experiments.record(
            run_id,
            metrics={
                "test_auc": scores["auc"],
                "test_average_precision": scores["average_precision"],
                "baseline_auc": report["baseline"]["auc"],
            },
            tags={"sagemaker_job": trained["name"], "model_uri": trained["model_uri"]},
        )
        experiments.end_run(run_id)
        return {"mlflow_run_id": run_id, "report": report}

    @task(execution_timeout=timedelta(minutes=5))
    def gate(recorded: dict[str, Any]) -> dict[str, Any]:
        from flights import registry

        return registry.choose(recorded["report"], threshold=0.5)

    trained = SageMakerJobOperator(
        task_id="train",
        kind="training",
        request=jobs.build,
        op_kwargs={
            "prefix": PREFIX,
            "point": {name: f"{{{{ params.{name} }}}}" for name in ("max_depth", "n_estimators")},
        },
    )
    evaluated = stages.evaluate(PREFIX, {"built": trained.output["model_uri"]})
    recorded = record(trained.output, PREFIX)
    chosen = gate(recorded)
    registered = stages.register(chosen, trained.output, recorded["mlflow_run_id"])
    stages.prepared_flights(PREFIX) >> trained >> evaluated >> recorded >> chosen >> registered


build_model()

"""### Search a grid of hyper-parameters

Trains one model for each combination in `grid`, compares them on the validation flights, tests the best one against the
baseline, and registers it in SageMaker's registry and in MLflow's. No Spark: the trials are SageMaker trainings side by
side (`grid_search_spark` does the same on a Spark engine).

**Schedule:** none; started from the UI's form, by `./updraft run grid_search --conf '{"grid": {"max_depth": [4, 8],
"n_estimators": [40, 80]}}'`, or by the REST API. A grid with more than four values of a kind, one out of range, or
another key is refused before there is a run.

**Flow:** data (extract → split → prepare) → open_search → trials (one mapped `train` and `record` for each point) →
best → evaluate → gate → register → close_search. In MLflow (experiment `flights`) the search is a run and each trial a
child of it.

**When it fails:** a trial that fails is marked failed in MLflow and ends the search, since the best of the others is not
the best of the grid; clear the trial to go on. `close_search` runs after every failure and closes the search's run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task, task_group

from flights import grid, jobs, stages
from flights.stages import PREFIX
from runtime.notify import notify_failure
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.registry import read_evaluation
from runtime.settings import workflow_settings

# As many trainings of a search at once: an account's quota for an instance type is often a few.
PARALLEL_TRIALS = 2


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["sagemaker", "tuning", "mlflow"],
    doc_md=__doc__,
    on_failure_callback=notify_failure,
    dagrun_timeout=timedelta(hours=6),
    default_args=stages.DEFAULT_ARGS,
    params={"grid": grid.grid({"max_depth": [4, 8], "n_estimators": [30, 60]})},
)
def grid_search() -> None:
    @task(execution_timeout=timedelta(minutes=5))
    def points(params: dict[str, Any] | None = None) -> list[dict[str, int]]:
        return grid.points((params or {})["grid"])

    @task(execution_timeout=timedelta(minutes=5), trigger_rule="all_done")
    def record(
        point: dict[str, int], trained: dict[str, Any] | None, parent_id: str | None
    ) -> dict[str, Any]:
        """The trial as a child run; a training that failed leaves nothing to read, and fails here too."""
        from flights import registry
        from runtime import experiments

        name = grid.label(point)
        run_id = experiments.start_run(
            get_current_context(),
            experiment=stages.EXPERIMENT,
            name=name,
            parameters=point,
            parent_id=parent_id,
        )
        if trained is None:
            experiments.end_run(run_id, succeeded=False)
            raise RuntimeError(f"the training with {name} failed; its reason is in the log of `train`")
        metrics = registry.final_metrics(trained["name"])
        experiments.record(
            run_id,
            metrics=metrics,
            tags={"sagemaker_job": trained["name"], "model_uri": trained["model_uri"]},
        )
        experiments.end_run(run_id)
        return {"point": point, **trained, **metrics, "mlflow_run_id": run_id}

    @task_group
    def trial(point: dict[str, int], parent_id: str | None) -> Any:
        trained = SageMakerJobOperator(
            task_id="train",
            kind="training",
            request=jobs.build,
            op_kwargs={"prefix": PREFIX, "point": point},
            max_active_tis_per_dagrun=PARALLEL_TRIALS,
        )
        return record(point, trained.output, parent_id)

    @task(execution_timeout=timedelta(minutes=5))
    def best(trials: list[dict[str, Any]] | dict[str, Any]) -> dict[str, Any]:
        # Of a grid with one point, Airflow hands on the trial itself.
        several = [trials] if isinstance(trials, dict) else trials
        return max(several, key=lambda trial: trial["validation_auc"])

    @task(execution_timeout=timedelta(minutes=5))
    def gate(prefix: str, best: dict[str, Any], parent_id: str | None) -> dict[str, Any]:
        from flights import registry
        from runtime import experiments

        report = read_evaluation(workflow_settings(), prefix)
        test_auc, baseline_auc = report["candidates"]["best"]["auc"], report["baseline"]["auc"]
        for run_id in (parent_id, best["mlflow_run_id"]):
            experiments.record(run_id, metrics={"test_auc": test_auc, "baseline_auc": baseline_auc})
        experiments.record(
            parent_id,
            metrics={"validation_auc": best["validation_auc"]},
            tags={f"best.{name}": str(value) for name, value in best["point"].items()},
        )
        return registry.choose(report, threshold=0.5)

    opened = stages.open_search()
    found = points()
    trials = trial.partial(parent_id=opened).expand(point=found)
    chosen = best(trials)
    evaluated = stages.evaluate(PREFIX, {"best": chosen["model_uri"]})
    passed = gate(PREFIX, chosen, opened)
    registered = stages.register(passed, chosen, chosen["mlflow_run_id"])
    closed = stages.close_search(opened, registered).as_teardown()
    stages.prepared_flights(PREFIX) >> opened >> found
    evaluated >> passed
    registered >> closed


grid_search()

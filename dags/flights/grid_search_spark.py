"""### Search a grid of hyper-parameters in Spark

The same search as `grid_search`, by one PySpark program (`ml/flights/spark_grid_search.py`) on the engine that the
environment's file names: a container of its own on ECS, EMR Serverless, or Databricks. The program grows one forest for
each combination in `grid`, compares them on the validation flights and tests the best one.

**Schedule:** none; started from the UI's form, by `./updraft run grid_search_spark --conf '{"grid": {"max_depth": [4,
8], "n_estimators": [10, 20]}}'`, or by the REST API. A grid that is too large, out of range or misspelt is refused
before there is a run.

**Flow:** data (extract → split → prepare) → plan → engine → one of on_ecs, on_emr_serverless, on_databricks → record →
gate → register → close_search. Trials, report, model and Spark's event log lie in the data bucket below the run's
`spark/`; in MLflow (experiment `flights`) the search is a run and each trial a child of it. The best model, a
`PipelineModel`, is registered in MLflow as `…-flights-spark`; SageMaker has no container that serves it.

**When it fails:** without an engine, `plan` says how to choose one. Otherwise the log of the engine's task has the
program's. `close_search` runs after every failure and closes the search's run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk import dag, get_current_context, task

from flights import grid, stages
from flights.stages import PREFIX
from runtime.notify import notify_failure
from runtime.settings import workflow_settings

LONGEST = timedelta(hours=1)
POLL_SECONDS = 30


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["spark", "tuning", "mlflow"],
    doc_md=__doc__,
    on_failure_callback=notify_failure,
    dagrun_timeout=timedelta(hours=4),
    default_args=stages.DEFAULT_ARGS,
    params={"grid": grid.grid({"max_depth": [4, 8], "n_estimators": [10, 20]})},
)
def grid_search_spark() -> None:
    @task(execution_timeout=timedelta(minutes=5), multiple_outputs=True)
    def plan(prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The program beside the data, and what the engine's operator is given."""
        from flights import spark

        settings, context = workflow_settings(), get_current_context()
        name = f"{context['dag'].dag_id} {context['run_id']}"
        search = spark.Search(settings, prefix, (params or {})["grid"], name)
        chosen = spark.engine(settings)
        search.upload_program()
        return {"engine": chosen, **search.operator_arguments()}

    @task.branch(execution_timeout=timedelta(minutes=5))
    def engine(chosen: str) -> str:
        return f"on_{chosen.replace('-', '_')}"

    @task(execution_timeout=timedelta(minutes=10), trigger_rule="none_failed_min_one_success")
    def record(prefix: str, parent_id: str | None) -> dict[str, Any]:
        """Each trial as a child run, the best one's figures on the search's."""
        from flights import spark
        from runtime import experiments

        context = get_current_context()
        trials, report = spark.read_results(workflow_settings(), prefix=prefix)
        for trial in trials:
            point = {name: trial[name] for name in ("max_depth", "n_estimators")}
            run_id = experiments.start_run(
                context,
                experiment=stages.EXPERIMENT,
                name=grid.label(point),
                parameters=point,
                parent_id=parent_id,
            )
            metrics = {name: trial[name] for name in ("validation_auc", "seconds")}
            experiments.record(run_id, metrics=metrics)
            experiments.end_run(run_id)
        experiments.record(
            parent_id,
            metrics={name: report[name] for name in ("validation_auc", "test_auc", "baseline_auc")},
            tags={
                "best.max_depth": str(report["max_depth"]),
                "best.n_estimators": str(report["n_estimators"]),
                "spark.application_id": report["application_id"],
                "spark.version": report["spark_version"],
            },
        )
        return report

    @task(execution_timeout=timedelta(minutes=5))
    def gate(report: dict[str, Any]) -> dict[str, Any]:
        from flights import registry

        scores = {
            "candidates": {"best": {"auc": report["test_auc"]}},
            "baseline": {"auc": report["baseline_auc"]},
        }
        return registry.choose(scores, threshold=0.5)

    @task(execution_timeout=timedelta(minutes=10))
    def register(prefix: str, chosen: dict[str, Any], parent_id: str | None) -> dict[str, Any]:
        from flights import spark
        from runtime import experiments

        settings = workflow_settings()
        name, uri = f"{settings.model_package_group}-spark", spark.model_uri(settings, prefix=prefix)
        version = experiments.register_model(
            parent_id,
            name=name,
            source=uri,
            tags={"format": "pyspark.ml.PipelineModel"},
            description=f"AUC {chosen['value']:.4f}, baseline {chosen['baseline']:.4f}",
        )
        return {
            **chosen,
            "uri": uri,
            "mlflow_run_id": parent_id,
            "mlflow_model": name if version else None,
            "mlflow_version": version,
        }

    opened = stages.open_search()
    planned = plan(PREFIX)
    on_ecs = EcsRunTaskOperator(
        task_id="on_ecs",
        cluster=planned["cluster"],
        task_definition=planned["task_definition"],
        overrides=planned["overrides"],
        network_configuration=planned["network_configuration"],
        tags=planned["tags"],
        launch_type="FARGATE",
        awslogs_group=planned["awslogs_group"],
        awslogs_stream_prefix="spark",
        awslogs_fetch_interval=timedelta(seconds=2),
        container_name="spark",
        # A retry goes on with the task of the try before, and a task that is ended stops it.
        reattach=True,
        deferrable=False,
        execution_timeout=LONGEST,
    )
    on_emr_serverless = EmrServerlessStartJobOperator(
        task_id="on_emr_serverless",
        application_id=planned["application_id"],
        execution_role_arn=planned["execution_role_arn"],
        job_driver=planned["job_driver"],
        configuration_overrides=planned["configuration_overrides"],
        config=planned["config"],
        name=planned["name"],
        deferrable=True,
        waiter_delay=POLL_SECONDS,
        waiter_max_attempts=int(LONGEST.total_seconds()) // POLL_SECONDS,
        execution_timeout=LONGEST,
    )
    on_databricks = DatabricksSubmitRunOperator(
        task_id="on_databricks",
        databricks_conn_id=planned["databricks_conn_id"],
        json=planned["json"],
        polling_period_seconds=POLL_SECONDS,
        deferrable=False,
        execution_timeout=LONGEST,
    )
    recorded = record(PREFIX, opened)
    chosen = gate(recorded)
    registered = register(PREFIX, chosen, opened)
    closed = stages.close_search(opened, registered).as_teardown()
    stages.prepared_flights(PREFIX) >> opened >> planned
    engine(planned["engine"]) >> [on_ecs, on_emr_serverless, on_databricks] >> recorded
    registered >> closed


grid_search_spark()

"""### Which motor policies will have a claim?

Takes an insurer's delivery of customers, policies and claims into the lake, checks it, enriches and transforms it,
publishes it, and trains a model that foresees claims; every policy gets a score.

**Schedule:** none; started by hand, by `./updraft run insurance_etl`, or by the REST API with a `conf`. The delivery is
made up from `seed`, dated on the day of the run.

**Flow:** `ingest` (extract → check delivery) → `transform` (stage → enrich → build features → check curated) →
`publish` (warehouse and lake) → `model` (train and evaluate on SageMaker → gate → register → record) → `scoring`
(batch transform → publish scores). Tables are in the schema `insurance` of the warehouse, files below `insurance/` in
the data bucket: `raw/`, `staged/`, and the published ones beside them.

**When it fails:** a check names every violation at once, and nothing has been published; what was published before
stays as it was. The warehouse's tables change all at once or not at all. A model that is no better than the tariff, or
below the threshold, fails at the gate and is not registered. A failed task can be cleared, since what the run's jobs
need is removed only when it has succeeded; once another run has delivered, clear from `ingest.extract` on, which the
tasks before `model` say themselves. Give a `defect` to see it.
"""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.sdk import Param, TaskGroup, dag, get_current_context, task

from insurance import jobs
from insurance.catalog import (
    CURATED,
    DEFECT_NAMES,
    DELIVERED,
    ENRICHED,
    FEATURES,
    SCORES,
    curated_key,
    raw_key,
    staged_key,
)
from runtime.assets import data_asset, table_asset
from runtime.dag_defaults import default_args, run_prefix
from runtime.notify import notify_failure
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.registry import read_evaluation
from runtime.settings import workflow_settings

PREFIX = run_prefix("insurance/runs")
RAW = [data_asset(raw_key(table)) for table in DELIVERED]
STAGED = {table: data_asset(staged_key(table)) for table in (*DELIVERED, ENRICHED, FEATURES)}
LAKE = {table: data_asset(curated_key(table)) for table in (*CURATED, SCORES)}
WAREHOUSE = {table: table_asset("insurance", table) for table in (*CURATED, SCORES)}
TO_PUBLISH = [STAGED[staged] for staged in CURATED.values()]
JOB_TIMEOUT = timedelta(hours=1)
log = logging.getLogger(__name__)


@task(outlets=RAW)
def extract(params: dict[str, Any] | None = None) -> dict[str, Any]:
    from insurance import pipeline

    given = params or {}
    return pipeline.extract(
        bucket=workflow_settings().data_bucket,
        run_id=run_id(),
        policies=given["policies"],
        seed=given["seed"],
        as_of=run_date(),
        defect=given["defect"],
    )


@task(inlets=RAW)
def check_delivery() -> dict[str, int]:
    from insurance import pipeline

    return pipeline.check_delivery(bucket=workflow_settings().data_bucket, run_id=run_id(), today=run_date())


@task(inlets=RAW, outlets=[STAGED[table] for table in DELIVERED])
def stage() -> None:
    from insurance import pipeline

    pipeline.stage(bucket=workflow_settings().data_bucket, run_id=run_id())


@task(inlets=[STAGED[table] for table in DELIVERED], outlets=[STAGED[ENRICHED]])
def enrich() -> int:
    from insurance import pipeline

    return pipeline.enrich(bucket=workflow_settings().data_bucket, run_id=run_id())


@task(inlets=[STAGED[ENRICHED], STAGED["claims"]], outlets=[STAGED[FEATURES]])
def build_features(as_of: str) -> int:
    from insurance import pipeline

    return pipeline.build_features(
        bucket=workflow_settings().data_bucket, run_id=run_id(), as_of=date.fromisoformat(as_of)
    )


@task(inlets=[STAGED[table] for table in ("policies", "claims", ENRICHED, FEATURES)])
def check_curated() -> dict[str, float]:
    from insurance import pipeline

    return pipeline.check_curated(bucket=workflow_settings().data_bucket, run_id=run_id())


@task(inlets=TO_PUBLISH, outlets=[WAREHOUSE[table] for table in CURATED])
def load_warehouse() -> dict[str, int]:
    from insurance import pipeline

    return pipeline.load_warehouse(bucket=workflow_settings().data_bucket, run_id=run_id())


@task(inlets=TO_PUBLISH, outlets=[LAKE[table] for table in CURATED])
def load_lake() -> list[str]:
    from insurance import pipeline

    return pipeline.load_lake(bucket=workflow_settings().data_bucket, run_id=run_id())


@task(inlets=[LAKE[FEATURES]])
def write_matrices(prefix: str) -> dict[str, int]:
    from insurance import pipeline

    return pipeline.write_matrices(bucket=workflow_settings().data_bucket, prefix=prefix)


@task
def gate(prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    from insurance import registry

    report = read_evaluation(workflow_settings(), prefix)
    return registry.judge(report, threshold=(params or {})["threshold"])


@task
def register(judged: dict[str, Any], trained: dict[str, Any]) -> dict[str, str]:
    from insurance import registry

    context = get_current_context()
    return registry.register(
        workflow_settings(),
        name=trained["name"],
        model_uri=trained["model_uri"],
        judged=judged,
        context=context,
    )


@task
def record(
    registered: dict[str, str], prefix: str, params: dict[str, Any] | None = None
) -> dict[str, str | None]:
    from insurance import registry

    return registry.record(
        registered=registered,
        report=read_evaluation(workflow_settings(), prefix),
        parameters=params or {},
        context=get_current_context(),
    )


@task(outlets=[LAKE[SCORES], WAREHOUSE[SCORES]])
def publish_scores(prefix: str, as_of: str, registered: dict[str, str]) -> dict[str, int]:
    from insurance import pipeline

    return pipeline.publish_scores(
        bucket=workflow_settings().data_bucket,
        prefix=prefix,
        as_of=date.fromisoformat(as_of),
        model_package_arn=registered["model_package_arn"],
        run_id=run_id(),
    )


@task
def clean_up(prefix: str) -> int:
    """Removes what only the jobs needed, once the run has succeeded: a failed task that is cleared needs it again."""
    from insurance import pipeline

    instance = get_current_context()["ti"]
    states = instance.get_task_states(dag_id=instance.dag_id, run_ids=[instance.run_id])[instance.run_id]
    left = sorted(task_id for task_id, state in states.items() if state != "success")
    if left != [instance.task_id]:
        log.info("nothing is removed, the run has not succeeded: %s", ", ".join(left))
        return 0
    return pipeline.clean_up(bucket=workflow_settings().data_bucket, prefix=prefix)


def run_id() -> str:
    """The run's id, which its delivery carries."""
    return str(get_current_context()["run_id"])


def run_date() -> date:
    """The day of the run, the same for all its tasks and tries."""
    moment: datetime = get_current_context()["dag_run"].run_after
    return moment.astimezone(UTC).date()


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["etl", "insurance", "sagemaker", "training"],
    doc_md=__doc__,
    dagrun_timeout=timedelta(hours=4),
    on_failure_callback=notify_failure,
    default_args=default_args("data-engineering", execution_timeout=timedelta(minutes=15)),
    params={
        "policies": Param(
            20_000, type="integer", minimum=1_000, maximum=1_000_000, description="Policies delivered"
        ),
        "seed": Param(7, type="integer", minimum=0, description="Another seed delivers another book"),
        "defect": Param(
            None,
            type=["null", "string"],
            enum=[None, *DEFECT_NAMES],
            description="Spoils the delivery in one way, to see what comes of it",
        ),
        "rounds": Param(300, type="integer", minimum=1, maximum=5_000, description="Most rounds of boosting"),
        "max_depth": Param(3, type="integer", minimum=1, maximum=16, description="Depth of each tree"),
        "eta": Param(0.05, type="number", exclusiveMinimum=0, maximum=1, description="Learning rate"),
        "threshold": Param(
            0.64, type="number", minimum=0.5, maximum=1, description="Least AUC of a good model"
        ),
    },
)
def insurance_etl() -> None:
    with TaskGroup("ingest") as ingest:
        delivery = extract()
        delivery >> check_delivery()

    with TaskGroup("transform") as transform:
        stage() >> enrich() >> build_features(delivery["as_of"]) >> check_curated()

    with TaskGroup("publish") as publish:
        load_warehouse() >> load_lake()

    with TaskGroup("model") as model:
        trained = SageMakerJobOperator(
            task_id="train",
            kind="training",
            request=jobs.train,
            op_kwargs={
                "prefix": PREFIX,
                "hyperparameters": {
                    name: f"{{{{ params.{name} }}}}" for name in ("rounds", "max_depth", "eta")
                },
            },
            execution_timeout=JOB_TIMEOUT,
        )
        evaluated = SageMakerJobOperator(
            task_id="evaluate",
            kind="processing",
            request=jobs.evaluate,
            op_kwargs={"prefix": PREFIX, "model_uri": trained.output["model_uri"]},
            execution_timeout=JOB_TIMEOUT,
        )
        judged = gate(PREFIX)
        registered = register(judged, trained.output)
        write_matrices(PREFIX) >> trained >> evaluated >> judged
        record(registered, PREFIX)

    with TaskGroup("scoring") as scoring:
        scored = SageMakerJobOperator(
            task_id="score",
            kind="transform",
            request=jobs.score,
            op_kwargs={"prefix": PREFIX, "model_name": registered["model_name"]},
            execution_timeout=JOB_TIMEOUT,
        )
        scored >> publish_scores(PREFIX, delivery["as_of"], registered)

    # A teardown: it runs whatever came before, and says nothing about whether the run succeeded.
    ingest >> transform >> publish >> model >> scoring >> clean_up(PREFIX).as_teardown()


insurance_etl()

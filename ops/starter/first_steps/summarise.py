"""### First steps

A DAG to start from: makes some numbers, writes them to the environment's data bucket, and reads them back.

**Schedule:** none; started from the UI's form, or by `./updraft run first_steps --conf '{"rows": 50}'`.

**Flow:** write → summarise. The file is an Asset: what is scheduled on it runs when `write` has written it.

**When it fails:** each task is tried again once; the log says what is wrong.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from runtime.assets import data_asset
from runtime.notify import notify_failure

KEY = "first_steps/numbers.csv"


@dag(
    dag_id="first_steps",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["starter"],
    doc_md=__doc__,
    on_failure_callback=notify_failure,
    dagrun_timeout=timedelta(hours=1),
    default_args={"owner": "data-science", "retries": 1, "retry_delay": timedelta(seconds=10)},
    params={"rows": Param(10, type="integer", minimum=1, maximum=10_000, description="Rows to write")},
)
def first_steps() -> None:
    @task(outlets=[data_asset(KEY)], execution_timeout=timedelta(minutes=5))
    def write(params: dict[str, Any] | None = None) -> int:
        import boto3

        from runtime.settings import workflow_settings

        rows = range((params or {})["rows"])
        body = "number,square\n" + "".join(f"{row},{row * row}\n" for row in rows)
        boto3.client("s3").put_object(Bucket=workflow_settings().data_bucket, Key=KEY, Body=body.encode())
        return len(rows)

    @task(inlets=[data_asset(KEY)], execution_timeout=timedelta(minutes=5))
    def summarise(rows: int) -> dict[str, int]:
        import boto3

        from runtime.settings import workflow_settings

        answer = boto3.client("s3").get_object(Bucket=workflow_settings().data_bucket, Key=KEY)
        squares = [int(line.split(",")[1]) for line in answer["Body"].read().decode().splitlines()[1:]]
        if len(squares) != rows:
            raise ValueError(f"{rows} rows were written, {len(squares)} came back")
        return {"rows": rows, "sum_of_squares": sum(squares)}

    summarise(write())


first_steps()

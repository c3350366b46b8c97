"""The insurance pipeline on the running platform: what it publishes, and what it leaves alone when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from local.certificates import ensure_ca
from ops.airflow_api import AirflowApi
from ops.target import target_of
from tests.end_to_end.platform import PATHS, ROOT, client, download
from tests.pipelines.notifications import failures_queue

DAG = "insurance_etl"
POLICIES, FEWER = 20_000, 2_000
RUN_SECONDS = 600
# Which task stops a delivery that is spoilt in this way, and a part of what it says.
STOPPED = {
    "missing column": ("ingest.check_delivery", "policies: lacks the column coverage"),
    "wrong type": (
        "ingest.check_delivery",
        "policies.annual_mileage_km: 4 values that are no INTEGER (12,000 km)",
    ),
    "empty value": ("ingest.check_delivery", "customers.born_on: 6 rows without a value"),
    "duplicates": ("ingest.check_delivery", "policies.policy_id: 5 keys that appear more than once"),
    "orphans": ("ingest.check_delivery", "claims.policy_id: 3 rows that no row of policies has"),
    "out of range": ("ingest.check_delivery", "claims.amount_usd: 7 values outside 0 to 5000000"),
    "unknown value": ("ingest.check_delivery", "(helipad)"),
    "future dates": ("ingest.check_delivery", "claims: 1 claims on a day to come"),
    "truncated": ("ingest.check_delivery", "rows came, the manifest says"),
    "stale": ("ingest.check_delivery", "it may be 2 days old"),
    "unknown region": (
        "transform.check_curated",
        "regions that region_risk.csv does not have (Atlantis)",
    ),
}
TABLES = ("customers", "policies", "claims", "policy_features", "policy_scores")
COUNT_ROWS = (
    "import duckdb, sys; print(duckdb.sql(f\"SELECT count(*) FROM '{sys.argv[1]}'\").fetchall()[0][0])"
)


@pytest.fixture(scope="module")
def told(airflow: AirflowApi) -> Iterator[Any]:
    """A queue behind the topic of failed runs; calling it gives what came for a run."""
    assert airflow
    with failures_queue("insurance-failures") as of_run:
        yield of_run


@contextmanager
def warehouse() -> Iterator[Any]:
    """A cursor in the warehouse, with the log-in of the DAGs."""
    secret = client("secretsmanager").get_secret_value(SecretId="updraft/local/connections/warehouse")
    login = json.loads(secret["SecretString"])
    connection = psycopg2.connect(
        host=login["host"],
        port=login["port"],
        dbname=login["schema"],
        user=login["login"],
        password=login["password"],
        sslmode="verify-full",
        sslrootcert=str(ensure_ca(PATHS)),
    )
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def rows_in_warehouse() -> dict[str, int]:
    with warehouse() as cursor:
        counts = {}
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM insurance.{table}")
            counts[table] = cursor.fetchone()[0]
    return counts


def published() -> dict[str, Any]:
    """Everything that readers see: rows and loads in the warehouse, versions of the objects in the lake."""
    with warehouse() as cursor:
        cursor.execute("SELECT * FROM insurance.loads ORDER BY 1, 2")
        loads = cursor.fetchall()
    bucket = target_of("local").output("storage", "DataBucket")
    s3 = client("s3")
    versions = {
        table: s3.head_object(Bucket=bucket, Key=f"insurance/{table}.parquet")["LastModified"]
        for table in TABLES
    }
    return {"rows": rows_in_warehouse(), "loads": loads, "versions": versions}


def run(airflow: AirflowApi, conf: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Run it to its end; id, state, and the state of each task."""
    run_id = str(airflow.trigger(DAG, conf)["dag_run_id"])
    ended = airflow.wait(DAG, run_id, timeout_seconds=RUN_SECONDS, on_change=lambda *_: None)
    tasks = {task["task_id"]: task["state"] for task in airflow.task_instances(DAG, run_id)}
    return run_id, ended["state"], tasks


def left_below(prefix: str) -> list[str]:
    bucket = target_of("local").output("storage", "DataBucket")
    found = client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in found]


@pytest.fixture(scope="module")
def good_run(airflow: AirflowApi) -> str:
    run_id, state, tasks = run(airflow, {"policies": POLICIES})
    assert state == "success", tasks
    assert set(tasks.values()) == {"success"}
    return run_id


def test_every_table_is_in_the_warehouse_and_in_the_lake(
    airflow: AirflowApi, good_run: str, tmp_path: Path
) -> None:
    rows = rows_in_warehouse()
    delivered = airflow.xcom(DAG, good_run, "ingest.extract")["rows"]
    assert delivered["policies"] == POLICIES == rows["policy_scores"]
    assert {table: rows[table] for table in delivered} == delivered
    assert rows["policy_features"] > 1.5 * POLICIES
    bucket = target_of("local").output("storage", "DataBucket")
    for table, count in rows.items():
        file = download(f"s3://{bucket}/insurance/{table}.parquet", tmp_path)
        python = PATHS.environments / "airflow" / "bin" / "python"
        ran = subprocess.run(
            [python, "-c", COUNT_ROWS, file],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(ran.stdout) == count, table


def test_warehouse_has_keys_types_and_the_load(good_run: str) -> None:
    with warehouse() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'p' "
            "AND connamespace = 'insurance'::regnamespace"
        )
        assert {name for (name,) in cursor.fetchall()} >= {f"insurance.{table}" for table in TABLES}
        cursor.execute(
            "SELECT data_type FROM information_schema.columns WHERE table_schema = 'insurance' "
            "AND table_name = 'claims' AND column_name IN ('occurred_on', 'amount_usd') ORDER BY column_name"
        )
        assert cursor.fetchall() == [("double precision",), ("date",)]
        cursor.execute("SELECT count(*) FROM insurance.loads WHERE run_id = %s", (good_run,))
        assert cursor.fetchone() == (len(TABLES),)


def test_model_beats_the_tariff_and_is_registered(
    airflow: AirflowApi, platform: dict[str, Any], good_run: str
) -> None:
    judged = airflow.xcom(DAG, good_run, "model.gate")
    assert judged["value"] > judged["baseline"] + 0.02
    registered = airflow.xcom(DAG, good_run, "model.register")
    package = client("sagemaker").describe_model_package(ModelPackageName=registered["model_package_arn"])
    assert package["ModelPackageGroupName"] == "updraft-local-insurance"
    assert package["ModelApprovalStatus"] == "Approved"
    recorded = airflow.xcom(DAG, good_run, "model.record")
    login = platform["credentials"]["mlflow"]
    answer = requests.get(
        f"{platform['urls']['mlflow']}/api/2.0/mlflow/model-versions/get",
        params={"name": "insurance-claims", "version": recorded["model_version"]},
        auth=(login["username"], login["password"]),
        timeout=30,
    )
    version = answer.json()["model_version"]
    assert version["source"] == registered["model_uri"]
    assert version["run_id"] == recorded["mlflow_run_id"]
    found = requests.get(
        f"{platform['urls']['mlflow']}/api/2.0/mlflow/runs/get",
        params={"run_id": recorded["mlflow_run_id"]},
        auth=(login["username"], login["password"]),
        timeout=30,
    ).json()["run"]
    metrics = {item["key"]: item["value"] for item in found["data"]["metrics"]}
    assert metrics["model_auc"] == pytest.approx(judged["value"])
    assert found["info"]["status"] == "FINISHED"


@pytest.mark.usefixtures("good_run")
def test_scores_foresee_more_claims_where_there_were_some() -> None:
    with warehouse() as cursor:
        cursor.execute(
            "SELECT min(claim_probability), max(claim_probability), "
            "avg(claim_probability) FILTER (WHERE claims > 0), avg(claim_probability) FILTER (WHERE claims = 0) "
            "FROM insurance.policy_scores JOIN insurance.policies USING (policy_id)"
        )
        low, high, with_claims, without = cursor.fetchone()
    assert 0 < low < high < 1
    assert with_claims > 1.2 * without


def test_what_only_the_jobs_needed_is_gone_and_the_model_is_there(airflow: AirflowApi, good_run: str) -> None:
    uri = airflow.xcom(DAG, good_run, "model.register")["model_uri"]
    prefix = uri.partition("/models/")[0].split("/", 3)[3]
    left = left_below(f"{prefix}/")
    assert uri.split("/", 3)[3] in left
    assert f"{prefix}/evaluation/evaluation.json" in left
    assert not [key for key in left if "/matrices/" in key or "/scores/" in key]


@pytest.mark.usefixtures("good_run")
@pytest.mark.parametrize("defect", STOPPED)
def test_spoilt_delivery_is_stopped_told_and_changes_nothing(
    airflow: AirflowApi, told: Any, defect: str
) -> None:
    task, words = STOPPED[defect]
    before = published()
    run_id, state, tasks = run(airflow, {"policies": FEWER, "defect": defect})
    assert state == "failed"
    assert [name for name, value in tasks.items() if value == "failed"] == [task]
    assert tasks["clean_up"] == "success"
    assert tasks["publish.load_warehouse"] == tasks["model.train"] == "upstream_failed"
    assert any(words in line for line in airflow.task_log(DAG, run_id, task, 1))
    assert published() == before
    [message] = told(run_id)
    assert message["Subject"] == f"[updraft-local] {DAG} failed: {task}"
    assert f"/tasks/{task}" in message["Message"]


def content_of_warehouse() -> dict[str, str]:
    """A digest of the rows of each table that the deliveries make."""
    digests = {}
    with warehouse() as cursor:
        for table in TABLES[:4]:
            cursor.execute(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM insurance.{table} t")
            digests[table] = cursor.fetchone()[0]
    return digests


@pytest.mark.usefixtures("good_run")
def test_same_delivery_below_the_threshold_publishes_the_same_rows_and_no_model(
    airflow: AirflowApi, told: Any
) -> None:
    group = {"ModelPackageGroupName": "updraft-local-insurance"}
    sagemaker = client("sagemaker")
    models = len(sagemaker.list_model_packages(**group)["ModelPackageSummaryList"])
    before, content = published(), content_of_warehouse()
    run_id, state, tasks = run(airflow, {"policies": POLICIES, "threshold": 0.99})
    assert state == "failed"
    assert [name for name, value in tasks.items() if value == "failed"] == ["model.gate"]
    assert tasks["model.register"] == tasks["scoring.score"] == "upstream_failed"
    assert tasks["clean_up"] == tasks["publish.load_lake"] == "success"
    after = published()
    assert content_of_warehouse() == content
    assert after["rows"] == before["rows"]
    assert {load[0] for load in after["loads"]} == {load[0] for load in before["loads"]} | {run_id}
    assert after["versions"]["policy_scores"] == before["versions"]["policy_scores"]
    assert len(sagemaker.list_model_packages(**group)["ModelPackageSummaryList"]) == models
    [message] = told(run_id)
    assert "failed: model.gate" in message["Message"]

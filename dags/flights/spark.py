"""One PySpark program on the environment's engine: what each engine's operator is given, and where the results lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowFailException

from ml.flights import spark_grid_search
from runtime.settings import WorkflowSettings

LONGEST_MINUTES = 60
SPLITS = ("train", "validation", "test")


def engine(settings: WorkflowSettings) -> str:
    """The environment's engine; raises AirflowFailException when it has none."""
    chosen = str(settings.spark.get("engine", "none"))
    if chosen == "none":
        raise AirflowFailException(
            'this environment has no Spark engine: set [spark] engine = "ecs", "emr-serverless" or "databricks" in '
            "its file (docs/environments.md), and deploy"
        )
    return chosen


@dataclass(frozen=True)
class Search:
    """One search: where its data lies and what it tries."""

    settings: WorkflowSettings
    prefix: str
    grid: dict[str, list[int]]
    name: str

    @property
    def root(self) -> str:
        """Everything of the run, as a URI."""
        return f"s3://{self.settings.data_bucket}/{self.prefix}"

    @property
    def program(self) -> str:
        """The PySpark program."""
        return f"{self.root}/spark/program.py"

    @property
    def output(self) -> str:
        """What the program writes."""
        return f"{self.root}/spark"

    def matrices(self) -> dict[str, str]:
        """The prepared matrix of each split."""
        return {split: f"{self.root}/prepared/{split}/{split}.csv" for split in SPLITS}

    def program_arguments(self) -> list[str]:
        """The program's arguments where Spark itself reads and writes S3."""
        given = [part for split, uri in self.matrices().items() for part in (f"--{split}", uri)]
        return [*given, "--output", self.output, "--grid", json.dumps(self.grid)]

    def operator_arguments(self) -> dict[str, Any]:
        """The arguments of the engine's operator, by name."""
        engines = {"ecs": on_ecs, "emr-serverless": on_emr_serverless, "databricks": on_databricks}
        return engines[engine(self.settings)](self)

    def upload_program(self) -> None:
        """Put the program of this release beside the run's data."""
        bucket, _, key = self.program.removeprefix("s3://").partition("/")
        body = Path(spark_grid_search.__file__).read_bytes()
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def on_ecs(search: Search) -> dict[str, Any]:
    """EcsRunTaskOperator: the image fetches program and inputs and puts back what was written."""
    spark = search.settings.spark
    command = ["--program", search.program, "--output", search.output, "--grid", json.dumps(search.grid)]
    for split, uri in search.matrices().items():
        command += ["--input", f"{split}={uri}"]
    return {
        "cluster": spark["cluster"],
        "task_definition": spark["task_definition"],
        "overrides": {"containerOverrides": [{"name": spark["container"], "command": command}]},
        "network_configuration": {
            "awsvpcConfiguration": {
                "subnets": spark["subnet_ids"],
                "securityGroups": spark["security_group_ids"],
                "assignPublicIp": spark["assign_public_ip"],
            }
        },
        "awslogs_group": spark["log_group"],
        "tags": spark["tags"],
    }


def on_emr_serverless(search: Search) -> dict[str, Any]:
    """EmrServerlessStartJobOperator: Spark reads and writes S3 itself, and EMR puts the event log there."""
    events = f"{search.output}/events/"
    return {
        "application_id": search.settings.spark["application_id"],
        "execution_role_arn": search.settings.spark["execution_role_arn"],
        "job_driver": {
            "sparkSubmit": {
                "entryPoint": search.program,
                "entryPointArguments": search.program_arguments(),
            }
        },
        "configuration_overrides": {
            "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": events}}
        },
        "config": {"executionTimeoutMinutes": LONGEST_MINUTES},
        "name": search.name,
    }


def on_databricks(search: Search) -> dict[str, Any]:
    """DatabricksSubmitRunOperator: a cluster for this run alone, whose instance profile may use the data bucket."""
    spark = search.settings.spark
    events = {"destination": f"{search.output}/events", "region": search.settings.region}
    cluster = {
        "spark_version": spark["spark_version"],
        "node_type_id": spark["node_type"],
        "num_workers": spark["workers"],
        "aws_attributes": {
            "availability": "SPOT_WITH_FALLBACK",
            "instance_profile_arn": spark["instance_profile_arn"],
        },
        "cluster_log_conf": {"s3": events},
    }
    program = {"python_file": search.program, "parameters": search.program_arguments()}
    task = {"task_key": "grid_search", "new_cluster": cluster, "spark_python_task": program}
    return {
        "databricks_conn_id": spark["connection_id"],
        "json": {"run_name": search.name, "timeout_seconds": 60 * LONGEST_MINUTES, "tasks": [task]},
    }


def read_results(settings: WorkflowSettings, *, prefix: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The trials and the report that the program wrote; raises FileNotFoundError when there are none."""
    trials = _lines(settings, f"{prefix}/spark/trials/")
    [report] = _lines(settings, f"{prefix}/spark/report/")
    return trials, report


def model_uri(settings: WorkflowSettings, *, prefix: str) -> str:
    """Where the best trial's `PipelineModel` lies."""
    return f"s3://{settings.data_bucket}/{prefix}/spark/model"


def _lines(settings: WorkflowSettings, prefix: str) -> list[dict[str, Any]]:
    """The JSON lines of a folder that Spark wrote."""
    client = boto3.client("s3")
    listed = client.list_objects_v2(Bucket=settings.data_bucket, Prefix=prefix).get("Contents", [])
    parts = [item["Key"] for item in listed if item["Key"].removeprefix(prefix).startswith("part-")]
    if not parts:
        raise FileNotFoundError(f"the program wrote nothing below s3://{settings.data_bucket}/{prefix}")
    bodies = [client.get_object(Bucket=settings.data_bucket, Key=key)["Body"].read() for key in sorted(parts)]
    return [json.loads(line) for body in bodies for line in body.splitlines()]

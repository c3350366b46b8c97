"""Every DAG imports in Airflow's own environment, keeps the house rules, and does nothing while it is imported."""

import copy
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from local.paths import LocalPaths
from tests.dags.policy import violations

ROOT = Path(__file__).resolve().parent.parent.parent
DAGS = ROOT / "dags"
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
DAG_IDS = [
    "build_model",
    "grid_search",
    "grid_search_spark",
    "insurance_etl",
    "pet_detection",
    "sagemaker_training",
]
# What a DAG file may have outside its tasks by mistake, and what is said of it.
TOP_LEVEL = {
    "client": ("import boto3\nboto3.client('s3')", "a client of AWS is made"),
    "resource": ("import boto3\nboto3.resource('s3')", "a client of AWS is made"),
    "session": ("import boto3\nboto3.Session().client('s3')", "a client of AWS is made"),
    "variable": ("from airflow.sdk import Variable\nVariable.get('a', default='b')", "a variable is read"),
    "connection": (
        "from airflow.providers.postgres.hooks.postgres import PostgresHook\nPostgresHook('warehouse').get_conn()",
        "a connection is read",
    ),
    "request": (
        "import urllib.request\nurllib.request.urlopen('http://localhost:1')",
        "a host name is looked up",
    ),
    "socket": ("import socket\nsocket.socket().connect(('127.0.0.1', 1))", "a connection is opened"),
    "write": ("open('/tmp/updraft-never', 'w')", "updraft-never is written"),
    "append": (
        "from pathlib import Path\nPath('/tmp/updraft-never').open('a')",
        "updraft-never is written",
    ),
    "read": (
        "from pathlib import Path\nPath(__file__).with_name('data.csv').read_text()",
        "data.csv is read",
    ),
    "process": ("import subprocess\nsubprocess.run(['true'])", "a process is started"),
    "folder": ("import os\nos.makedirs('/tmp/updraft-never/a')", "a folder is made"),
    "sleep": ("import time\ntime.sleep(0)", "the import sleeps"),
}
# One thing of a good DAG that is left out or wrong, and what is said of it.
MUTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "owner": ({"owner": "airflow"}, "owner 'airflow' is nobody"),
    "tags": ({"tags": []}, "no tags"),
    "tag": ({"tags": ["Big Data"]}, "tag 'Big Data' is not lower-case"),
    "doc": ({"doc": ""}, "doc_md has 0 characters"),
    "failure section": ({"doc": "x" * 300 + "**Schedule:** **Flow:**"}, "doc_md lacks **When it fails:**"),
    "catchup": ({"catchup": True}, "catchup would start"),
    "dagrun_timeout": ({"timeout_seconds": None}, "no dagrun_timeout"),
    "notification": ({"notifies": False}, "nobody is told of a failure"),
    "param type": ({"params": {"size": {"description": "x"}}}, "param size has no type"),
    "param description": ({"params": {"size": {"type": "integer"}}}, "param size has no description"),
}
TASK_MUTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "retries": ({"retries": 0}, "no retries"),
    "retry_delay": ({"retry_delay_seconds": 3600.0}, "retry_delay is 3600.0 s"),
    "no retry_delay": ({"retry_delay_seconds": None}, "retry_delay is None s"),
    "execution_timeout": ({"timeout_seconds": None}, "no execution_timeout"),
    "long execution_timeout": ({"timeout_seconds": 10**6}, "execution_timeout is 1000000 s"),
}


@cache
def described(*folders: Path) -> dict[str, Any]:
    """What the DAG files of each folder say, read once."""
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    with TemporaryDirectory(prefix="updraft-dags-") as home:
        ran = subprocess.run(
            [PYTHON, "-m", "tests.dags.describe", *folders],
            cwd=ROOT,
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": os.environ["PATH"],
                "HOME": home,
                "AIRFLOW_HOME": home,
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def shipped() -> dict[str, dict[str, Any]]:
    """The project's DAGs by id."""
    return {dag["dag_id"]: dag for dag in described(DAGS)[str(DAGS)]["dags"]}


def test_exactly_these_dags_are_shipped_and_do_nothing_while_they_are_imported() -> None:
    assert described(DAGS)[str(DAGS)]["errors"] == {}
    assert sorted(shipped()) == DAG_IDS


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_dag_keeps_the_house_rules(dag_id: str) -> None:
    assert violations(shipped()[dag_id]) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_dag_that_breaks_a_rule_is_told(name: str) -> None:
    change, told = MUTATIONS[name]
    dag = shipped()["sagemaker_training"] | change
    assert any(f"sagemaker_training: {told}" in text for text in violations(dag))


@pytest.mark.parametrize("name", TASK_MUTATIONS)
def test_task_that_breaks_a_rule_is_told(name: str) -> None:
    change, told = TASK_MUTATIONS[name]
    dag = copy.deepcopy(shipped()["sagemaker_training"])
    dag["tasks"]["train"] |= change
    assert [text.partition(told)[:2] for text in violations(dag)] == [("sagemaker_training.train: ", told)]


def test_whatever_a_file_does_at_import_is_told(tmp_path: Path) -> None:
    for name, (code, _) in TOP_LEVEL.items():
        (tmp_path / f"{name}_dag.py").write_text(
            f"from airflow.sdk import DAG\n{code}\ndag = DAG('{name}')\n"
        )
    (tmp_path / "data.csv").write_text("a,b\n")
    (tmp_path / "good_dag.py").write_text("from airflow.sdk import DAG\ndag = DAG('good')\n")
    found = described(tmp_path)[str(tmp_path)]
    assert [dag["dag_id"] for dag in found["dags"]] == ["good"]
    errors = {Path(file).stem.removesuffix("_dag"): text for file, text in found["errors"].items()}
    assert set(errors) == set(TOP_LEVEL)
    for name, (_, told) in TOP_LEVEL.items():
        assert f"top-level I/O: {told} while the file is imported" in errors[name], name


@pytest.mark.parametrize(
    ("before", "after"),
    [("extract", "split"), ("split", "prepare"), ("prepare", "train"), ("train", "tune"), ("tune", "evaluate"),
     ("evaluate", "gate"), ("gate", "register"), ("register", "transform"), ("transform", "summary")],
)  # fmt: skip
def test_training_workflow_runs_in_order(before: str, after: str) -> None:
    assert after in shipped()["sagemaker_training"]["tasks"][before]["downstream"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("ingest.extract", "ingest.check_delivery"), ("ingest.check_delivery", "transform.stage"),
     ("transform.build_features", "transform.check_curated"), ("transform.check_curated", "publish.load_warehouse"),
     ("publish.load_warehouse", "publish.load_lake"), ("publish.load_lake", "model.write_matrices"),
     ("model.evaluate", "model.gate"), ("model.gate", "model.register"), ("model.register", "scoring.score"),
     ("scoring.score", "scoring.publish_scores"), ("scoring.publish_scores", "clean_up")],
)  # fmt: skip
def test_insurance_publishes_nothing_before_its_checks(before: str, after: str) -> None:
    assert after in shipped()["insurance_etl"]["tasks"][before]["downstream"]


def test_what_the_insurance_pipeline_reads_is_what_it_wrote_before() -> None:
    tasks = shipped()["insurance_etl"]["tasks"]
    read = {uri for task in tasks.values() for uri in task["inlets"]}
    written = {uri for task in tasks.values() for uri in task["outlets"]}
    assert read <= written
    assert {uri.rpartition("/")[2] for uri in written if uri.startswith("postgres://")} == {
        "customers", "policies", "claims", "policy_features", "policy_scores",
    }  # fmt: skip
    assert [task_id for task_id, task in tasks.items() if task["teardown"]] == ["clean_up"]


def test_starter_of_a_new_environment_keeps_the_house_rules() -> None:
    starter = ROOT / "ops" / "starter"
    found = described(starter)[str(starter)]
    assert (found["errors"], [dag["dag_id"] for dag in found["dags"]]) == ({}, ["first_steps"])
    assert violations(found["dags"][0]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("data_engineering.fetch", "data_engineering.transform"),
     ("data_engineering.transform", "ml_engineering.train"), ("ml_engineering.train", "ml_engineering.validate"),
     ("ml_engineering.validate", "ml_engineering.accept"), ("ml_engineering.accept", "ml_engineering.register"),
     ("ml_engineering.register", "build"), ("build", "deploy"), ("deploy", "summary"), ("summary", "clean_up")],
)  # fmt: skip
def test_pet_detection_deploys_only_what_was_accepted_and_cleans_up_last(before: str, after: str) -> None:
    assert after in shipped()["pet_detection"]["tasks"][before]["downstream"]

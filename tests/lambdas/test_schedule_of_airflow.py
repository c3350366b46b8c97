"""The first tasks are read as Airflow itself serializes DAGs, in the pinned version."""

import json
import os
import subprocess
from pathlib import Path

from lambdas.load_metric.schedule import FirstTask, first_tasks
from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
SERIALIZE = """
import datetime, json
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
with DAG("example", schedule="@hourly", start_date=datetime.datetime(2026, 1, 1)) as dag:
    begin = EmptyOperator(task_id="begin")
    one = BashOperator(task_id="one", bash_command="true", queue="gpu", pool="p", pool_slots=2)
    many = BashOperator.partial(task_id="many", queue="gpu").expand(bash_command=["a", "b"])
    plain = BashOperator(task_id="plain", bash_command="true")
    begin >> [one, many, plain] >> BashOperator(task_id="last", bash_command="true")
print(json.dumps(DagSerialization.to_dict(dag)))
"""


def test_first_tasks_of_a_dag_that_airflow_serialized(tmp_path: Path) -> None:
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    ran = subprocess.run(
        [str(PYTHON), "-c", SERIALIZE],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    assert found["__version"] == 3
    assert set(first_tasks(found)) == {FirstTask("gpu", "p", 2), FirstTask("gpu"), FirstTask()}
    assert len(first_tasks(found)) == 3

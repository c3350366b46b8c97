"""The main job on the embedded default, as a user runs it: the real CDK CLI, real Airflow, a training that trains."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.platform import PATHS, ROOT, client, download, updraft

pytestmark = pytest.mark.platform

# Loads the artifact in the training image's environment and scores it on the flights of the test split.
SCORE = """
import json, sys
import pandas as pd, xgboost as xgb
from pathlib import Path
from sklearn.metrics import roc_auc_score
from ml.flights.evaluate import load_model
test = pd.read_csv(sys.argv[2], header=None)
train = pd.read_csv(sys.argv[3], header=None)
scores = load_model(Path(sys.argv[1])).predict(xgb.DMatrix(test.iloc[:, 1:].to_numpy()))
hour = 1 + 2
baseline = test[hour].map(train.groupby(hour)[0].mean()).fillna(train[0].mean())
print(json.dumps({"auc": roc_auc_score(test[0], scores), "baseline": roc_auc_score(test[0], baseline)}))
"""


def test_run_succeeds_and_the_gpu_is_gone(demo: dict[str, Any]) -> None:
    assert demo["dag_run"]["state"] == "success"
    training = demo["training_job"]
    assert training["status"] == "Completed"
    assert training["instance_type"] == "ml.p3.2xlarge"
    assert training["billable_seconds"] > 0
    assert training["cost_usd"] > 0
    assert training["ended_at"] > training["started_at"]


def test_artifact_loads_and_beats_the_baseline_on_unseen_flights(
    demo: dict[str, Any], tmp_path: Path
) -> None:
    uri = demo["model"]["uri"]
    prefix = uri.partition("/models/")[0]
    files = [download(uri, tmp_path)]
    files += [download(f"{prefix}/prepared/{split}/{split}.csv", tmp_path) for split in ("test", "train")]
    ran = subprocess.run(
        [PATHS.environments / "training" / "bin" / "python", "-c", SCORE, *files],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    scores = json.loads(ran.stdout)
    assert scores["auc"] > scores["baseline"] + 0.02
    assert scores["auc"] == pytest.approx(demo["model"]["value"], abs=1e-4)


def test_model_package_is_approved_and_predictions_are_there(demo: dict[str, Any]) -> None:
    packages = client("sagemaker").list_model_packages(ModelPackageGroupName="updraft-local-flights")
    assert packages["ModelPackageSummaryList"][0]["ModelApprovalStatus"] == "Approved"
    bucket, _, key = demo["model"]["uri"].removeprefix("s3://").partition("/")
    prefix = key.partition("/models/")[0]
    body = client("s3").get_object(Bucket=bucket, Key=f"{prefix}/predictions/batch.csv.out")["Body"].read()
    values = [float(line) for line in body.split()]
    assert len(values) > 1000
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.usefixtures("demo")
def test_every_service_is_healthy_and_asks_for_a_log_in() -> None:
    status = json.loads(updraft("status", "--json").stdout)
    assert {row["service"] for row in status["services"]} == {
        "webserver", "scheduler", "dag-processor", "triggerer", "flower", "mlflow", "worker-burst",
            "worker-default",
    }  # fmt: skip
    assert all(row["healthy"] >= row["wanted"] for row in status["services"])
    assert all(state in ("ready", "running") for state in status["planes"].values())
    for url in ("http://127.0.0.1:8080/api/v2/dags", "http://127.0.0.1:5555/api/workers"):
        assert requests.get(url, timeout=10).status_code == 401


def test_second_push_of_the_same_dags_is_the_same_version(demo: dict[str, Any]) -> None:
    pushed = updraft("push", "--json")
    assert pushed.returncode == 0, pushed.stderr[-2000:]
    assert json.loads(pushed.stdout)["version"] == demo["push"]["version"]


@pytest.mark.usefixtures("demo")
def test_folder_without_dags_is_refused_and_the_old_version_stays(tmp_path: Path) -> None:
    before = client("ssm").get_parameter(Name="/updraft/local/bundle/pointer")["Parameter"]["Value"]
    refused = updraft("push", "--dags", str(tmp_path), "--json")
    assert refused.returncode == 1
    assert "can't be pushed" in json.loads(refused.stdout)["error"]
    assert client("ssm").get_parameter(Name="/updraft/local/bundle/pointer")["Parameter"]["Value"] == before


@pytest.mark.usefixtures("demo")
def test_second_up_changes_nothing() -> None:
    again = json.loads(updraft("up", "--json").stdout)
    assert again["deploy_seconds"] == 0

"""One account for all tests here, with a bucket, a role and two images; Airflow's side runs once beside it."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import images, processes
from local.account.context import AccountContext
from local.paths import ROOT, LocalPaths
from local.ports import free_port
from tests.image_environment import airflow_variables, image_python
from tests.local.sagemaker.hosting import wait_until
from tests.provider.names import BUCKET, NEIGHBOURS_IMAGE, ROLE_NAME, SPLIT_IMAGE

FOLDER = Path(__file__).resolve().parent
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
ALLOWED = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}],
}
# Long, for a machine that does much else.
START_SECONDS = 180
STOP_SECONDS = 60
# Long, for the same reason.
LIMIT_SECONDS = 900


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPaths]:
    port = free_port()
    paths = LocalPaths(tmp_path_factory.mktemp("account"), port=port)
    paths.log.mkdir()
    with (paths.log / "account.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.provider.account", str(paths.root), str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: is_ready(paths), "the account is ready", START_SECONDS)
        furnish(paths)
        yield paths
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
        left = processes.all_pids(paths)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, "a job's process outlived the account"


def is_ready(paths: LocalPaths) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError):
        opener.open(f"{paths.endpoint_url}/_updraft/ready", timeout=1).close()
        return True
    return False


def furnish(paths: LocalPaths) -> None:
    """Make what `names` promises."""
    context = AccountContext(paths=paths, logger=logging.getLogger("provider"))
    context.boto3_client("s3").create_bucket(Bucket=BUCKET)
    iam = context.boto3_client("iam")
    iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName=ROLE_NAME, PolicyName="jobs", PolicyDocument=json.dumps(ALLOWED))
    for uri, program in ((NEIGHBOURS_IMAGE, "neighbours.py"), (SPLIT_IMAGE, "split.py")):
        push(paths, uri, FOLDER / "images" / program)


def push(paths: LocalPaths, uri: str, program: Path) -> None:
    """An image whose entry point is one program, as it lies once a build has pushed it."""
    image = images.pushed_image(paths, uri)
    folder = image / "root" / "opt" / "program"
    folder.mkdir(parents=True)
    shutil.copyfile(program, folder / "main.py")
    described = {
        "name": "tools",
        "environment": {"ML_ROOT": "/opt/ml", "ML_HOST": "0.0.0.0"},
        "workdir": "/opt/program",
        "entrypoint": ["python", "/opt/program/main.py"],
        "copied": ["/opt/program"],
    }
    (image / "image.json").write_text(json.dumps(described))


@pytest.fixture(scope="session")
def airflow_side(account: LocalPaths, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the operators and the examples did, each in a process of Airflow's environment; both run side by side."""
    folder = tmp_path_factory.mktemp("airflow")
    running = {name: start(account, folder / name, f"run_{name}.py") for name in ("operators", "examples")}
    try:
        for name, process in running.items():
            code = process.wait(LIMIT_SECONDS)
            assert code == 0, (folder / name / "log").read_text()[-5000:]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return {name: json.loads((folder / name / "results.json").read_text()) for name in running}


def start(account: LocalPaths, home: Path, program: str) -> subprocess.Popen[bytes]:
    """A program of `with_airflow` that writes `results.json` and `log` into its home."""
    home.mkdir()
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [image_python("airflow"), FOLDER / "with_airflow" / program, home / "results.json"],
            cwd=ROOT,
            env=airflow_variables(
                home,
                AIRFLOW__CORE__DAGS_FOLDER=str(FOLDER / "with_airflow" / "dags"),
                AWS_DEFAULT_REGION=account.region,
                AWS_ENDPOINT_URL=account.endpoint_url,
                AWS_ACCESS_KEY_ID=account.access_key_id,
                AWS_SECRET_ACCESS_KEY=account.secret_access_key,
            ),
            stdout=log,
            stderr=log,
        )

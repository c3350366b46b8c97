"""A worker on SQS: a real Celery worker of the image's environment, with the options of the image's entry point."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.paths import LocalPaths
from runtime import entrypoint

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
# Of a machine that is busy with other tests.
PATIENCE_SECONDS = 120
POLL_SECONDS = 0.2
PROBE = """
import os, pathlib, time
from celery import Celery
from runtime.celery_config import CELERY_CONFIG

app = Celery("probe")
app.conf.update(CELERY_CONFIG | {"result_backend": "disabled://", "task_ignore_result": True})


@app.task(name="probe")
def probe(name: str, seconds: float = 0.0) -> None:
    folder = pathlib.Path(os.environ["PROBE_FOLDER"])
    (folder / f"{name}.begun").touch()
    time.sleep(seconds)
    (folder / f"{name}.done").touch()
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator alone, without any plane behind it: its SQS has real long polls."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("emulator")
    log = folder / "emulator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # In this very process: a worker that it spawned would outlive it when it is killed.
            [
                sys.executable,
                "-m",
                "hypercorn",
                "--workers=0",
                f"--bind=127.0.0.1:{port}",
                "ministack.app:app",
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "GATEWAY_PORT": str(port),
                "MINISTACK_HOST": "127.0.0.1",
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
                "DOCKER_HOST": f"unix://{folder}/no-docker.sock",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for("the emulator", lambda: answers(port), log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def sqs(endpoint: str) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}),
    )


@pytest.fixture
def queue(sqs: Any) -> Iterator[str]:
    url = sqs.create_queue(QueueName="updraft-test-default", Attributes={"VisibilityTimeout": "43200"})[
        "QueueUrl"
    ]
    yield url
    sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def environment(endpoint: str, queue: str, tmp_path: Path) -> dict[str, str]:
    given = {
        **{f"UPDRAFT_DATABASE_{part}": "unused" for part in entrypoint.DATABASE},
        "UPDRAFT_DATABASE_PORT": "5432",
        "UPDRAFT_DATABASE_CA_BUNDLE": str(ROOT / "docker" / "certificates" / "rds-global-bundle.pem"),
        "UPDRAFT_BROKER": "sqs",
        "UPDRAFT_BROKER_QUEUES": f'{{"default": "{queue}"}}',
        "UPDRAFT_BROKER_VISIBILITY_TIMEOUT_SECONDS": "43200",
        "UPDRAFT_FERNET_SECRET": "anything",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    (tmp_path / "probe.py").write_text(PROBE)
    return {
        **given,
        **entrypoint.compose(given),
        "AIRFLOW_HOME": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PROBE_FOLDER": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "celery", "--app", "probe", "worker", "--queues", "default", "--concurrency", "1"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: str, done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{what}: not in {PATIENCE_SECONDS} s\n{log.read_text()[-3000:]}"
        time.sleep(POLL_SECONDS)


def send(environment: dict[str, str], folder: Path, *calls: str) -> None:
    code = "from probe import probe\n" + "\n".join(
        f"probe.apply_async({call}, queue='default')" for call in calls
    )
    ran = subprocess.run(
        [PYTHON, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def waiting(sqs: Any, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def test_tasks_are_taken_and_deleted_and_a_warm_stop_finishes_what_it_has(
    environment: dict[str, str],
    worker: subprocess.Popen[bytes],
    sqs: Any,
    queue: str,
    tmp_path: Path,
) -> None:
    log = tmp_path / "worker.log"
    send(environment, tmp_path, "('a',)", "('b',)", "('c',)")
    wait_for("three tasks", lambda: all((tmp_path / f"{name}.done").exists() for name in "abc"), log)
    wait_for("an empty queue", lambda: waiting(sqs, queue) == 0, log)

    send(environment, tmp_path, "('slow', 3.0)")
    wait_for("the slow task's start", (tmp_path / "slow.begun").exists, log)
    worker.send_signal(signal.SIGTERM)
    wait_for("the worker's end", lambda: worker.poll() is not None, log)
    assert worker.returncode == 0, log.read_text()[-3000:]
    assert (tmp_path / "slow.done").exists()
    assert waiting(sqs, queue) == 0

    # No queue for remote control, gossip or events: SQS would bill and keep them.
    assert sqs.list_queues()["QueueUrls"] == [queue]

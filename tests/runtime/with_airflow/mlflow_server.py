"""A real MLflow server of the tracking image's environment, on SQLite and a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MLFLOW = ROOT / ".updraft" / "envs" / "mlflow" / "bin" / "mlflow"
START_SECONDS = 120


@contextmanager
def mlflow_server() -> Iterator[str]:
    """Its URL, while it runs."""
    assert MLFLOW.exists(), "the environment of image 'mlflow' is not there; make it with: ./updraft test"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", f"{folder}/artifacts"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with Path(folder, "log").open("w") as log:
            server = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _is_healthy(url):
                assert server.poll() is None and time.monotonic() < deadline, Path(folder, "log").read_text()
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(server.pid, 15)
            server.wait()


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

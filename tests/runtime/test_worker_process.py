"""A real Celery worker with the leave step, on a real Redis: it finishes what it has, takes nothing more, and leaves."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from redis import Redis

from local.broker.server import executable
from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
PROBE = """
import os, time
from celery import Celery
from celery.signals import celeryd_init
from runtime import worker
app = Celery("probe", broker=os.environ["PROBE_BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_default_queue="probe",
                broker_connection_retry_on_startup=True)
worker.FLEET_SECONDS = 0.2
celeryd_init.connect(worker.add_leave_step)

@app.task
def nap(name, seconds):
    with open(os.environ["PROBE_LEDGER"], "a") as ledger:
        ledger.write(f"began {name}\\n")
    time.sleep(seconds)
    with open(os.environ["PROBE_LEDGER"], "a") as ledger:
        ledger.write(f"ended {name}\\n")
"""
LONGEST_SECONDS = 120


@contextmanager
def ssm(record: dict[str, Any]) -> Iterator[str]:
    """Answers GetParameter with the record as it is at that moment."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            value = json.dumps(record | {"written_at": time.time()})
            body = json.dumps({"Parameter": {"Name": "x", "Type": "String", "Value": value}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def redis(folder: Path) -> Iterator[Path]:
    """A Redis on a Unix socket."""
    socket = folder / "redis.sock"
    command = [str(executable()), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists, "Redis did not start")
        yield socket
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def test_closing_worker_finishes_its_task_takes_no_other_and_leaves(tmp_path: Path) -> None:
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    (tmp_path / "probe.py").write_text(PROBE)
    ledger = tmp_path / "ledger"
    ledger.touch()
    record: dict[str, Any] = {"take_work": True, "keep": [], "closing": []}
    with redis(tmp_path) as socket, ssm(record) as endpoint:
        environment = os.environ | {
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PROBE_BROKER": f"redis+socket://{socket}",
            "PROBE_LEDGER": str(ledger), "TMPDIR": str(tmp_path), "UPDRAFT_QUEUE": "probe", "UPDRAFT_SSM_PREFIX": "/x",
            "UPDRAFT_WORKER_IDLE_SECONDS": "3600", "UPDRAFT_STOP_SECONDS": "120", "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        }  # fmt: skip

        def send(name: str, seconds: float) -> None:
            code = f"from probe import nap; nap.delay({name!r}, {seconds})"
            subprocess.run([PYTHON, "-c", code], env=environment, check=True, cwd=tmp_path)

        send("long", 8)
        with (tmp_path / "worker.log").open("w") as log:
            worker = subprocess.Popen(
                [PYTHON, "-m", "celery", "-A", "probe", "worker", "-Q", "probe", "-c", "2", "--loglevel", "INFO"],
                env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            wait_for(lambda: "began long" in ledger.read_text(), (tmp_path / "worker.log").read_text())
            record["take_work"] = False
            wait_for(
                lambda: "no longer consuming" in (tmp_path / "worker.log").read_text(), "it still consumes"
            )
            send("late", 0)
            assert worker.wait(timeout=LONGEST_SECONDS) == 0, (tmp_path / "worker.log").read_text()
        finally:
            worker.kill()
            worker.wait()
        assert ledger.read_text().splitlines() == ["began long", "ended long"]
        with Redis(unix_socket_path=str(socket)) as client:
            assert client.llen("probe") == 1

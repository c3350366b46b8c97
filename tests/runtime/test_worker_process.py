"""A real Celery worker with the leave step, on a real Redis: it finishes what it has, takes nothing more, and leaves."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from local.broker.server import executable
from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
PROBE = """
import os, subprocess, time
from celery import Celery
from celery.signals import celeryd_init
from runtime import worker
app = Celery("probe", broker=os.environ["PROBE_BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_default_queue="probe",
                broker_connection_retry_on_startup=True)
worker.FLEET_SECONDS = 0.2
tick = worker.LeaveStep._tick
def tick_until_told_to_hang(step, parent):
    tick(step, parent)
    if os.path.exists(os.environ["PROBE_HANG"]):
        worker.HUNG_SECONDS = 1.0
        time.sleep(3600)
worker.LeaveStep._tick = tick_until_told_to_hang
celeryd_init.connect(worker.add_leave_step)

@app.task
def nap(name, seconds):
    with open(os.environ["PROBE_LEDGER"], "a") as ledger:
        ledger.write(f"began {name}\\n")
    # As Airflow's tasks are, in a process of its own.
    subprocess.run(["sleep", str(seconds)], check=True)
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


class Probe:
    """A worker of the queue `probe`, its broker, and what the fleet's record says."""

    def __init__(
        self, folder: Path, environment: dict[str, str], record: dict[str, Any], socket: Path
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._socket = socket
        self.record = record
        self.process: subprocess.Popen[bytes] | None = None

    def send(self, name: str, seconds: float) -> None:
        code = f"from probe import nap; nap.delay({name!r}, {seconds})"
        subprocess.run([PYTHON, "-c", code], env=self._environment, check=True, cwd=self._folder)

    def start(self) -> None:
        with (self._folder / "worker.log").open("w") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "celery", "-A", "probe", "worker", "-Q", "probe", "-c", "2", "--loglevel", "INFO"],
                env=self._environment, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        if self.process is not None:
            # With its pool, which an end of its own leaves to the container.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log) from None

    def hang(self) -> None:
        (self._folder / "hang").touch()

    @property
    def log(self) -> str:
        return (self._folder / "worker.log").read_text()

    @property
    def ledger(self) -> list[str]:
        return (self._folder / "ledger").read_text().splitlines()

    @property
    def waiting(self) -> int:
        with Redis(unix_socket_path=str(self._socket)) as client:
            return int(client.llen("probe"))


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "ledger").touch()
    record: dict[str, Any] = {"take_work": True, "keep": [], "closing": []}
    with redis(tmp_path) as socket, ssm(record) as endpoint:
        environment = os.environ | {
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PROBE_BROKER": f"redis+socket://{socket}",
            "PROBE_LEDGER": str(tmp_path / "ledger"), "PROBE_HANG": str(tmp_path / "hang"), "TMPDIR": str(tmp_path),
            "UPDRAFT_QUEUE": "probe", "UPDRAFT_SSM_PREFIX": "/x", "UPDRAFT_WORKER_IDLE_SECONDS": "3600",
            "UPDRAFT_STOP_SECONDS": "120", "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        }  # fmt: skip
        found = Probe(tmp_path, environment, record, socket)
        try:
            yield found
        finally:
            found.stop()


def test_closing_worker_finishes_its_task_takes_no_other_and_leaves(probe: Probe) -> None:
    probe.send("long", 8)
    probe.start()
    wait_for(lambda: "began long" in probe.ledger, "it took no task")
    probe.record["take_work"] = False
    wait_for(lambda: "no longer consuming" in probe.log, "it still consumes")
    probe.send("late", 0)
    assert probe.wait() == 0, probe.log
    assert probe.ledger == ["began long", "ended long"]
    assert probe.waiting == 1


def test_worker_that_hangs_ends_itself_when_its_task_has_ended(probe: Probe) -> None:
    probe.send("long", 8)
    probe.start()
    wait_for(lambda: "began long" in probe.ledger, "it took no task")
    probe.hang()
    assert probe.wait() == 1, probe.log
    assert probe.ledger == ["began long", "ended long"]
    assert "the event loop has not turned" in probe.log

"""One version of Airflow on one database: its commands, its runs, and what it reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

from benchmarks.upgrade.database import Database
from local.paths import ROOT
from local.ports import free_port
from runtime.entrypoint import compose

HERE = Path(__file__).parent
LONGEST_STEP_SECONDS = 600
DAG = "upgrade_history"
History = dict[str, Any]


class Airflow:
    """One version: its environment on one database."""

    def __init__(self, python: Path, database: Database, home: Path) -> None:
        self.python = python
        self.database = database
        self.home = home
        self.version = version_of(python)
        self.port = free_port()
        self.environment = _environment(python, database, home, self.port)

    def start(self, *command: str, output: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        """A command of this version's environment, in a process group of its own."""
        return subprocess.Popen(
            [str(self.python), *command],
            cwd=ROOT,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        process = self.start(*command)
        try:
            output, _ = process.communicate(timeout=LONGEST_STEP_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    def migrate(self, *arguments: str) -> tuple[int, str]:
        """The migration task."""
        return self.call("-m", "runtime.migrate", *arguments)

    def run_dag(self, *confs: dict[str, bool]) -> None:
        """A run of the DAG for each conf, by this version's own scheduler; raises RuntimeError when one ends otherwise."""
        code, output = self.call("-m", "airflow", "dags", "reserialize")
        if code != 0:
            raise RuntimeError(f"Airflow {self.version}, reserialize: exit code {code}\n{output[-4000:]}")
        with self._components():
            for conf in confs:
                run_id = f"{self.version}-{time.time_ns()}"
                trigger = ("dags", "trigger", DAG, "--conf", json.dumps(conf), "--run-id", run_id)
                code, output = self.call("-m", "airflow", *trigger)
                if code != 0:
                    raise RuntimeError(f"Airflow {self.version}, trigger: exit code {code}\n{output[-4000:]}")
                state = self._end_of(run_id)
                if state != ("failed" if conf["fail"] else "success"):
                    said = "\n".join(log.read_text()[-4000:] for log in sorted(self.home.glob("*.log")))
                    raise RuntimeError(f"Airflow {self.version}: the run {run_id} ended as {state}\n{said}")

    @contextmanager
    def _components(self) -> Iterator[None]:
        """An API server, and a scheduler that runs tasks itself, for as long as they are needed."""
        server = ("api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        with self._component(*server):
            # A task that starts before it fails.
            health = f"http://127.0.0.1:{self.port}/api/v2/monitor/health"
            deadline = time.monotonic() + LONGEST_STEP_SECONDS
            while not _answers(health):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Airflow {self.version}: {health} does not answer")
                time.sleep(0.5)
            with self._component("scheduler"):
                yield

    @contextmanager
    def _component(self, *command: str) -> Iterator[None]:
        with (self.home / f"{command[0]}.log").open("w") as log:
            process = self.start("-m", "airflow", *command, output=log)
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=LONGEST_STEP_SECONDS)

    def _end_of(self, run_id: str) -> str:
        deadline = time.monotonic() + LONGEST_STEP_SECONDS
        while time.monotonic() < deadline:
            [[state]] = self.database.query(f"SELECT state FROM dag_run WHERE run_id = '{run_id}'")
            if state in ("success", "failed"):
                return str(state)
            time.sleep(0.5)
        raise TimeoutError(f"Airflow {self.version}: the run {run_id} did not end; logs are in {self.home}")

    def do(self, *what: str) -> list[History]:
        """What `inside.py` prints: a document for each `read`."""
        code, output = self.call(str(HERE / "inside.py"), *what)
        if code != 0:
            raise RuntimeError(
                f"Airflow {self.version}, {' '.join(what)}: exit code {code}\n{output[-4000:]}"
            )
        return [json.loads(line) for line in output.splitlines() if line.startswith('{"runs"')]


def version_of(python: Path) -> str:
    """Airflow's version in an environment."""
    ask = "from importlib.metadata import version; print(version('apache-airflow'))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _environment(python: Path, database: Database, home: Path, port: int) -> dict[str, str]:
    given = {
        "UPDRAFT_DATABASE_HOST": "127.0.0.1",
        "UPDRAFT_DATABASE_PORT": str(database.endpoint.port),
        "UPDRAFT_DATABASE_NAME": database.name,
        "UPDRAFT_DATABASE_USER": database.endpoint.master.user,
        "UPDRAFT_DATABASE_PASSWORD": database.endpoint.master.password,
        "UPDRAFT_DATABASE_CA_BUNDLE": str(database.endpoint.authority),
        "UPDRAFT_ADMIN_USERNAME": "admin",
        "UPDRAFT_ADMIN_PASSWORD": "secret",
        "UPDRAFT_METRICS_DATABASE_USER": "load_metric",
        "UPDRAFT_FERNET_SECRET": "a secret of this run",
        "UPDRAFT_BROKER": "redis",
        **{f"UPDRAFT_BROKER_{part}": "unused" for part in ("HOST", "PORT", "PASSWORD")},
    }
    bundle = {
        "name": "upgrade",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(HERE / "dags")},
    }
    home.mkdir(parents=True)
    return {
        **given,
        **compose(given),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE / 'dags'}",
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a token secret of this run, long enough for HS512: " + "x" * 32,
        "AIRFLOW__API__SECRET_KEY": "a session key of this run",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
    }

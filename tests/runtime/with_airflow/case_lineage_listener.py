"""Airflow's own listener managers call the hooks: they cost a small file, whatever the tracking server does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[3]
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "runtime" / "plugins")
os.environ |= {"UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "test"}
os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "x"}

from airflow.listeners.listener import get_listener_manager as services_manager  # noqa: E402
from airflow.sdk import Asset  # noqa: E402
from airflow.sdk.listener import get_listener_manager as tasks_manager  # noqa: E402

from runtime.lineage import exporter  # noqa: E402
from runtime.lineage.notes import note, note_model_package  # noqa: E402
from runtime.lineage.spool import Spool  # noqa: E402

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# What every hook of a task together may take.
LONGEST_SECONDS = 2.0


class Operator(SimpleNamespace):
    def execute(self) -> None: ...


def running_task(**changes: Any) -> Any:
    """As the task runner has it in the task's own process."""
    task = Operator(
        owner="me",
        inlets=[Asset("s3://data/in.csv")],
        outlets=[Asset("postgres://db:5432/warehouse/sales/orders")],
    )
    return SimpleNamespace(
        **{
            "dag_id": "sales", "run_id": "manual", "task_id": "load", "map_index": -1, "try_number": 1,
            "start_date": NOW, "end_date": None, "state": "running", "task": task,
            "bundle_instance": SimpleNamespace(version="v1"),
        }
        | changes
    )  # fmt: skip


def dag_run(**changes: Any) -> Any:
    """As the scheduler has it."""
    tasks = [
        SimpleNamespace(task_id="extract", downstream_task_ids={"group.load"}),
        SimpleNamespace(task_id="group.load", downstream_task_ids=set()),
    ]
    dag = SimpleNamespace(
        tasks=tasks, relative_fileloc="sales/etl.py", owner="me", tags={"b", "a"}, params={"rounds": 1, "eta": 0.5},
    )  # fmt: skip
    return SimpleNamespace(
        **{
            "dag_id": "sales", "run_id": "manual", "start_date": NOW, "end_date": NOW, "bundle_version": "v1",
            "run_type": "manual", "conf": {"rounds": 3}, "dag": dag,
        }
        | changes
    )  # fmt: skip


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class SpoolCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        before = tempfile.tempdir
        tempfile.tempdir = os.environ["TMPDIR"] = folder.name
        self.addCleanup(lambda: setattr(tempfile, "tempdir", before))
        self.addCleanup(os.environ.pop, "MLFLOW_TRACKING_URI", None)
        self.addCleanup(exporter.stop)
        os.environ["MLFLOW_TRACKING_URI"] = closed_port()

    def events(self) -> list[dict[str, Any]]:
        return [Spool.read(file) for file in Spool().waiting()]


class Hooks(SpoolCase):
    def test_try_of_a_task_is_kept_from_its_start_to_its_end(self) -> None:
        hook = tasks_manager().hook
        hook.on_task_instance_running(previous_state=None, task_instance=running_task())
        hook.on_task_instance_success(previous_state=None, task_instance=running_task(end_date=NOW))
        begun, ended = self.events()
        self.assertEqual((begun["state"], begun["end_ms"]), ("running", None))
        self.assertEqual((ended["state"], ended["end_ms"]), ("success", 1767323045000))
        self.assertEqual(ended["tags"], {"operator": "Operator", "bundle_version": "v1", "owner": "me"})
        self.assertEqual(ended["sources"], [{"name": "in.csv", "uri": "s3://data/in.csv"}])
        self.assertEqual(
            ended["destinations"],
            [{"name": "sales.orders", "uri": "postgres://db:5432/warehouse/sales/orders"}],
        )

    def test_failure_with_a_try_left_is_told_from_the_last_one(self) -> None:
        hook = tasks_manager().hook
        for state in ("up_for_retry", "failed"):
            hook.on_task_instance_failed(
                previous_state=None, task_instance=running_task(state=state), error=None
            )
        hook.on_task_instance_skipped(previous_state=None, task_instance=running_task())
        self.assertEqual([event["state"] for event in self.events()], ["up_for_retry", "failed", "skipped"])

    def test_runs_that_a_task_makes_itself_say_where_they_come_from(self) -> None:
        tasks_manager().hook.on_task_instance_running(previous_state=None, task_instance=running_task())
        told = json.loads(os.environ["MLFLOW_RUN_CONTEXT"])
        self.assertEqual(
            {key: told[key] for key in ("pipeline", "run_id", "task_id", "bundle_version", "project")},
            {
                "pipeline": "sales", "run_id": "manual", "task_id": "load", "bundle_version": "v1",
                "project": "updraft",
            },
        )  # fmt: skip

    def test_dag_run_brings_its_graph_its_file_and_its_parameters(self) -> None:
        services_manager().hook.on_dag_run_running(dag_run=dag_run(), msg="started")
        [event] = self.events()
        self.assertEqual(
            event["graph"],
            'flowchart LR\n  t0["extract"]\n  t1["group.load"]\n  t0 --> t1\n',
        )
        self.assertEqual((event["file"], event["params"]), ("sales/etl.py", {"rounds": "3", "eta": "0.5"}))
        self.assertEqual(event["tags"]["airflow_tags"], "a, b")

    def test_task_that_the_scheduler_ended_is_kept_too(self) -> None:
        lost = running_task(end_date=NOW, operator="PythonOperator", task=None)
        del lost.bundle_instance
        services_manager().hook.on_task_instance_failed(previous_state=None, task_instance=lost, error="lost")
        [event] = self.events()
        self.assertEqual((event["state"], event["tags"]["operator"]), ("failed", "PythonOperator"))

    def test_note_of_a_task_is_kept_and_does_nothing_where_tracking_is_off(self) -> None:
        note(tags={"model_version": 3}, destinations=["s3://data/a/b/"], instance=running_task())
        [event] = self.events()
        self.assertEqual((event["kind"], event["tags"]), ("note", {"model_version": "3"}))
        self.assertEqual(event["destinations"], [{"name": "a/b", "uri": "s3://data/a/b/"}])
        del os.environ["MLFLOW_TRACKING_URI"]
        note(tags={"model_version": 4}, instance=running_task())
        self.assertEqual(len(self.events()), 1)

    def test_metric_that_no_server_takes_is_left_out_and_told_once(self) -> None:
        metrics = {"auc": 0.5, "loss": float("nan"), "ratio": float("-inf")}
        with self.assertLogs("runtime.lineage.notes", "WARNING") as logged:
            note(metrics=metrics, tags={"a": "b"}, instance=running_task())
        [event] = self.events()
        self.assertEqual((event["metrics"], event["tags"]), ({"auc": 0.5}, {"a": "b"}))
        [line] = logged.output
        self.assertIn("left out: loss is nan, ratio is -inf", line)

    def test_registered_package_is_noted_by_group_and_version(self) -> None:
        with mock.patch("airflow.sdk.get_current_context", return_value={"ti": running_task()}):
            note_model_package("arn:aws:sagemaker:us-east-1:0:model-package/updraft-flights/3")
        [event] = self.events()
        self.assertEqual(
            (event["tags"]["model_name"], event["tags"]["model_version"]), ("updraft-flights", "3")
        )

    def test_nothing_that_is_wrong_with_lineage_fails_a_task(self) -> None:
        hook = tasks_manager().hook
        hook.on_task_instance_success(previous_state=None, task_instance=SimpleNamespace())
        note(tags={"a": "b"})  # no task runs here
        Spool().folder.parent.joinpath("updraft-lineage").write_text("not a folder")
        hook.on_task_instance_running(previous_state=None, task_instance=running_task())
        services_manager().hook.on_dag_run_success(dag_run=dag_run(), msg="")


class Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None: ...


class Slow(Broken):
    def do_GET(self) -> None:
        time.sleep(1.5)
        super().do_GET()

    do_POST = do_GET


class Bounds(SpoolCase):
    """The hooks of a task's life, and of its DAG run's, against real servers that are of no use."""

    def whole_life(self) -> float:
        started = time.monotonic()
        services_manager().hook.on_dag_run_running(dag_run=dag_run(), msg="")
        hook = tasks_manager().hook
        hook.on_task_instance_running(previous_state=None, task_instance=running_task())
        note(tags={"a": "b"}, instance=running_task())
        hook.on_task_instance_success(previous_state=None, task_instance=running_task(end_date=NOW))
        services_manager().hook.on_dag_run_success(dag_run=dag_run(), msg="")
        return time.monotonic() - started

    def serve(self, handler: type[Broken]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def hanging(self) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        accepted: list[socket.socket] = []

        def hold() -> None:
            for _ in range(100):
                accepted.append(listener.accept()[0])

        Thread(target=hold, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def assert_bounded(self, url: str) -> None:
        os.environ["MLFLOW_TRACKING_URI"] = url
        self.whole_life()  # imports
        took = self.whole_life()
        self.assertLess(took, LONGEST_SECONDS)
        # The exporter had its time to try, and what it could not hand over is still there.
        time.sleep(1.5)
        self.assertEqual(len(self.events()), 10)
        print(f"{self.id().rsplit('.', 1)[1]}: {took * 1000:.1f} ms", file=sys.stderr)
        started = time.monotonic()
        with mock.patch.object(exporter, "STOP_SECONDS", 1.0):
            exporter.stop()
        self.assertLess(time.monotonic() - started, 2)

    def test_server_that_is_down_delays_nothing(self) -> None:
        self.assert_bounded(closed_port())

    def test_server_that_hangs_delays_nothing(self) -> None:
        self.assert_bounded(self.hanging())

    def test_server_that_answers_500_delays_nothing(self) -> None:
        self.assert_bounded(self.serve(Broken))

    def test_server_that_is_slow_delays_nothing(self) -> None:
        self.assert_bounded(self.serve(Slow))


class Life(SpoolCase):
    def test_container_has_one_exporter_which_ends_with_its_service(self) -> None:
        service = subprocess.Popen(
            [sys.executable, "-c",
             "import time; from runtime.lineage import exporter; exporter.ensure_running();"
             "print(exporter._Child.process.pid, flush=True); time.sleep(60)"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert service.stdout is not None
        self.addCleanup(service.stdout.close)
        pid = int(service.stdout.readline())
        time.sleep(2)
        exporter.ensure_running()
        second = exporter._Child.process
        assert second is not None
        self.assertEqual(second.wait(10), 0)
        self.assertTrue(Path(f"/proc/{pid}").exists())
        service.kill()
        service.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertFalse(Path(f"/proc/{pid}").exists())


if __name__ == "__main__":
    unittest.main()

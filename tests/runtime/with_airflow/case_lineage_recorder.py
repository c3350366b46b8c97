"""Events become runs on a real MLflow server, whoever hands them over, in any order and as often as they come."""

from __future__ import annotations

import os
import tempfile
import threading
import unittest
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from runtime.lineage import names
from runtime.lineage.exporter import Exporter
from runtime.lineage.recorder import Recorder
from runtime.lineage.spool import Spool
from runtime.lineage.tracking import Tracking, TrackingRefusedError
from tests.runtime.with_airflow.mlflow_server import mlflow_server

START, END = 1_767_000_000_000, 1_767_000_012_500
TABLE = {"name": "sales.orders", "uri": "postgres://db:5432/warehouse/sales/orders"}
OBJECT = {"name": "raw/orders.csv", "uri": "s3://data/raw/orders.csv"}
_turns: dict[str, threading.Lock] = {}


@contextmanager
def turns(key: str) -> Iterator[None]:
    """What the database's lock does, within this process."""
    with _turns.setdefault(key, threading.Lock()):
        yield


def measure(uri: str) -> dict[str, float]:
    if uri.startswith("s3://"):
        raise FileNotFoundError("no such object")
    return {"rows": 7.0, "size_bytes": 8192.0, "created_at": 1.0, "modified_at": 2.0}


server = ExitStack()


def setUpModule() -> None:
    Server.url = server.enter_context(mlflow_server())


def tearDownModule() -> None:
    server.close()


class Server(unittest.TestCase):
    url: str

    def setUp(self) -> None:
        self.dag_id = f"sales-{uuid.uuid4().hex[:8]}"
        self.states: dict[str, tuple[str, int | None]] = {}
        self.tracking = self.new_tracking()
        os.environ |= {"UPDRAFT_PROJECT": "updraft", "UPDRAFT_RELEASES_DIRECTORY": "/nowhere"}

    def new_tracking(self) -> Tracking:
        return Tracking(self.url, username="admin", password="x")

    def new_recorder(self) -> Recorder:
        """As another container has it: it remembers nothing."""
        return Recorder(self.new_tracking(), measure=measure, lock=turns, states=lambda *_: self.states)

    def dag_run(self, state: str, **changes: Any) -> dict[str, Any]:
        return {
            "kind": "dag_run", "dag_id": self.dag_id, "run_id": "manual__1+00:00'", "state": state,
            "start_ms": START, "end_ms": None if state == "running" else END,
            "tags": {"bundle_version": "v1", "run_type": "manual"},
        } | changes  # fmt: skip

    def task(self, state: str, **changes: Any) -> dict[str, Any]:
        return {
            "kind": "task", "dag_id": self.dag_id, "run_id": "manual__1+00:00'", "task_id": "load",
            "map_index": -1, "try_number": 1, "state": state, "start_ms": START,
            "end_ms": None if state == "running" else END,
            "tags": {"operator": "PythonOperator", "bundle_version": "v1"}, "sources": [], "destinations": [],
        } | changes  # fmt: skip

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run of the DAG by its name, tags, params and metrics as mappings."""
        found = list(self.tracking.search([self.tracking.experiment(self.dag_id)], ""))
        names_ = [run["info"]["run_name"] for run in found]
        self.assertEqual(len(set(names_)), len(names_), names_)
        return {
            run["info"]["run_name"]: {
                **run["info"],
                **{
                    kind: {item["key"]: item["value"] for item in run["data"].get(kind, [])}
                    for kind in ("tags", "params", "metrics")
                },
            }
            for run in found
        }


class Recording(Server):
    def test_dag_run_and_its_tasks_are_nested_runs_with_what_they_read_and_wrote(self) -> None:
        recorder = self.new_recorder()
        for event in (
            self.dag_run("running", params={"rounds": "3"}, graph="flowchart LR\n", file="sales/etl.py"),
            self.task("running"),
            self.task("success", sources=[OBJECT], destinations=[TABLE]),
        ):
            recorder.record(event)
        self.states = {"a": ("success", END), "b": ("success", END), "c": ("upstream_failed", None)}
        recorder.record(self.dag_run("success"))
        found = self.runs()
        run, task = found["manual__1+00:00'"], found["load"]
        self.assertEqual((run["status"], run["start_time"], run["end_time"]), ("FINISHED", START, END))
        self.assertEqual(run["params"], {"rounds": "3"})
        self.assertEqual(
            run["metrics"], {"duration_seconds": 12.5, "tasks/success": 2, "tasks/upstream_failed": 1}
        )
        self.assertEqual(task["tags"][names.PARENT], run["run_id"])
        self.assertEqual((task["status"], task["tags"]["state"]), ("FINISHED", "success"))
        self.assertEqual(
            task["params"],
            {"source/raw/orders.csv": OBJECT["uri"], "destination/sales.orders": TABLE["uri"]},
        )
        self.assertEqual(
            task["metrics"],
            {
                "duration_seconds": 12.5, "destination/sales.orders/rows": 7,
                "destination/sales.orders/size_bytes": 8192, "destination/sales.orders/created_at": 1,
                "destination/sales.orders/modified_at": 2,
            },
        )  # fmt: skip
        self.assertIn("source/raw/orders.csv: FileNotFoundError", task["tags"]["unmeasured"])
        for tags in (run["tags"], task["tags"]):
            self.assertEqual(
                {key: tags[key] for key in ("pipeline", "dag_id", "bundle_version", "project")},
                {
                    "pipeline": self.dag_id, "dag_id": self.dag_id, "bundle_version": "v1",
                    "project": "updraft",
                },
            )  # fmt: skip
        self.assertEqual((task["tags"]["task_id"], task["tags"]["operator"]), ("load", "PythonOperator"))

    def test_graph_and_source_of_the_release_are_artifacts(self) -> None:
        with tempfile.TemporaryDirectory() as releases:
            os.environ["UPDRAFT_RELEASES_DIRECTORY"] = releases
            file = Path(releases, "v1", "sales", "etl.py")
            file.parent.mkdir(parents=True)
            file.write_text("# the DAG\n")
            self.new_recorder().record(self.dag_run("running", graph="flowchart LR\n", file="sales/etl.py"))
        [run] = self.runs().values()
        listed = requests.get(
            f"{self.url}/api/2.0/mlflow/artifacts/list",
            params={"run_id": run["run_id"], "path": "dag"},
            timeout=9,
        ).json()
        self.assertEqual({file["path"] for file in listed["files"]}, {"dag/graph.mmd", "dag/etl.py"})
        source = requests.get(
            f"{self.url}/get-artifact", params={"run_id": run["run_id"], "path": "dag/etl.py"}, timeout=9
        )
        self.assertEqual(source.text, "# the DAG\n")

    def test_many_exporters_at_once_make_no_run_twice(self) -> None:
        events = [self.task("running", task_id=f"t{number % 3}") for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda event: self.new_recorder().record(event), events))
        self.assertEqual(set(self.runs()), {"manual__1+00:00'", "t0", "t1", "t2"})

    def test_exporter_after_a_restart_goes_on_with_the_runs_that_are_there(self) -> None:
        self.new_recorder().record(self.dag_run("running"))
        self.new_recorder().record(self.task("running"))
        for _ in range(2):  # an answer that was lost makes it come again
            self.new_recorder().record(self.task("success", destinations=[TABLE]))
        self.new_recorder().record(self.dag_run("failed"))
        self.assertEqual(
            {name: run["status"] for name, run in self.runs().items()},
            {"manual__1+00:00'": "FAILED", "load": "FINISHED"},
        )

    def test_each_try_and_each_mapped_instance_is_a_run_of_its_own(self) -> None:
        recorder = self.new_recorder()
        for event in (
            self.task("up_for_retry"),
            self.task("success", try_number=2),
            self.task("skipped", task_id="each", map_index=0),
            self.task("failed", task_id="each", map_index=1),
        ):
            recorder.record(event)
        states = {name: (run["status"], run["tags"]["state"]) for name, run in self.runs().items()}
        del states["manual__1+00:00'"]
        self.assertEqual(
            states,
            {
                "load": ("FAILED", "up_for_retry"), "load (try 2)": ("FINISHED", "success"),
                "each[0]": ("FINISHED", "skipped"), "each[1]": ("FAILED", "failed"),
            },
        )  # fmt: skip

    def test_end_of_the_dag_run_ends_what_a_lost_worker_left_open_and_nothing_else(self) -> None:
        recorder = self.new_recorder()
        recorder.record(self.dag_run("running"))
        recorder.record(self.task("running", task_id="lost"))
        recorder.record(self.task("running", task_id="unknown"))
        key = names.dag_run_key(self.dag_id, "manual__1+00:00'")
        self.tracking.create_run(
            self.tracking.experiment(self.dag_id), name="of the user", start_ms=START,
            tags={names.DAG_RUN_KEY: key},
        )  # fmt: skip
        self.states = {names.task_key(self.task("running", task_id="lost")): ("failed", END - 1)}
        recorder.record(self.dag_run("failed"))
        found = self.runs()
        self.assertEqual((found["lost"]["status"], found["lost"]["end_time"]), ("FAILED", END - 1))
        self.assertEqual(found["unknown"]["status"], "FAILED")
        self.assertEqual(found["of the user"]["status"], "RUNNING")

    def test_cleared_dag_run_goes_on_in_its_own_run(self) -> None:
        recorder = self.new_recorder()
        recorder.record(self.dag_run("running", params={"rounds": "3"}))
        recorder.record(self.dag_run("failed"))
        recorder.record(self.dag_run("running", params={"rounds": "4"}))
        [run] = self.runs().values()
        self.assertEqual((run["status"], run["params"]), ("RUNNING", {"rounds": "3"}))

    def test_model_that_a_task_noted_is_found_by_task_and_dag_run(self) -> None:
        note = self.task("running") | {
            "kind": "note", "metrics": {"billable_seconds": 9.0}, "destinations": [TABLE],
            "tags": {"model_package_arn": "arn:aws:x/1", "sagemaker_job_name": "job"},
        }  # fmt: skip
        self.new_recorder().record(note)
        found = self.runs()
        self.assertEqual(found["load"]["tags"]["sagemaker_job_name"], "job")
        self.assertEqual(found["load"]["metrics"]["billable_seconds"], 9.0)
        self.assertEqual(found["manual__1+00:00'"]["tags"]["model_package_arn"], "arn:aws:x/1")
        self.assertNotIn("sagemaker_job_name", found["manual__1+00:00'"]["tags"])

    def test_names_that_the_server_would_refuse_are_written_as_it_takes_them(self) -> None:
        odd = {"name": "year=2026/../a//b+c@d.csv", "uri": "postgres://x/y=1"}
        self.new_recorder().record(self.task("success", destinations=[odd]))
        task = self.runs()["load"]
        self.assertEqual(task["params"], {"destination/year_2026/a/b_c_d.csv": "postgres://x/y=1"})
        self.assertEqual(task["metrics"]["destination/year_2026/a/b_c_d.csv/rows"], 7)

    def test_server_says_what_is_not_there(self) -> None:
        with self.assertRaises(TrackingRefusedError) as raised:
            self.tracking.run("0" * 32)
        self.assertEqual(raised.exception.code, "RESOURCE_DOES_NOT_EXIST")
        self.assertIsNone(self.tracking.find_experiment("nobody's"))


class Exporting(Server):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.spool = Spool(Path(folder.name) / "spool", most=3)

    def test_events_outlast_a_server_that_is_away(self) -> None:
        self.spool.put(self.task("running"))
        self.spool.put(self.task("success"))
        away = Recorder(
            Tracking("http://127.0.0.1:9", username="a", password="b"),
            measure=measure, lock=turns, states=lambda *_: {},
        )  # fmt: skip
        self.assertFalse(Exporter(self.spool, away.record).export())
        self.assertEqual(len(self.spool.waiting()), 2)
        back = Exporter(self.spool, self.new_recorder().record)
        self.assertTrue(back.export())
        self.assertEqual((back.exported, back.dropped, self.spool.waiting()), (2, 0, []))
        self.assertEqual(self.runs()["load"]["status"], "FINISHED")

    def test_spool_that_is_full_keeps_what_it_has(self) -> None:
        kept = [self.spool.put(self.task("running", task_id=f"t{number}")) for number in range(5)]
        self.assertEqual(kept, [True, True, True, False, False])

    def test_old_events_are_dropped_and_counted(self) -> None:
        self.spool.put(self.task("running"))
        exporter = Exporter(self.spool, self.new_recorder().record, oldest_seconds=0)
        self.assertTrue(exporter.export())
        self.assertEqual((exporter.exported, exporter.dropped), (0, 1))

    def test_event_that_can_never_be_taken_holds_up_no_other(self) -> None:
        self.spool.put({"kind": "unheard of"})
        self.spool.put(self.task("success"))
        exporter = Exporter(self.spool, self.new_recorder().record)
        self.assertTrue(exporter.export())
        self.assertEqual((exporter.exported, exporter.dropped), (1, 1))


if __name__ == "__main__":
    unittest.main()

"""What runs share, and what each has for itself: no task works on another run's delivery, or lacks what it is cleared for."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

DAGS = Path(__file__).resolve().parents[3] / "dags"
sys.path.insert(0, str(DAGS))

from airflow.dag_processing.dagbag import DagBag
from insurance import catalog, pipeline
from insurance.lake import Lake

DAY = date(2026, 11, 21)
DELIVERY = {"policies": 1_000, "seed": 7, "as_of": DAY, "defect": None}
# Every step that reads what all runs share.
READERS: dict[str, Callable[..., Any]] = {
    "check_delivery": lambda **given: pipeline.check_delivery(today=DAY, **given),
    "stage": pipeline.stage,
    "enrich": pipeline.enrich,
    "build_features": lambda **given: pipeline.build_features(as_of=DAY, **given),
    "check_curated": pipeline.check_curated,
    "load_warehouse": pipeline.load_warehouse,
    "load_lake": pipeline.load_lake,
}


class Folder(Lake):
    """A bucket that is a folder; the upload of the object `lost` fails."""

    root: ClassVar[Path]
    lost: ClassVar[str | None]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, key: str) -> Path:
        return Path(shutil.copy(self.root / key, self.folder / key.replace("/", "_")))

    def keep(self, file: Path, key: str) -> None:
        if key == self.lost:
            raise ConnectionError("the worker is lost")
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.root / key)

    def copy(self, source: str, target: str) -> None:
        shutil.copy(self.root / source, self.root / target)


@contextmanager
def lake(_bucket: str) -> Iterator[Lake]:
    with tempfile.TemporaryDirectory() as folder:
        yield Folder(Path(folder))


class Deliveries(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Folder.root, Folder.lost = Path(folder.name), None
        patched = mock.patch.object(pipeline, "lake", lake)
        patched.start()
        self.addCleanup(patched.stop)

    def files(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in Folder.root.rglob("*.*")}

    def test_no_step_of_an_older_run_works_on_a_later_ones_delivery(self) -> None:
        for run_id in ("older", "newer"):
            pipeline.extract(bucket="data", run_id=run_id, **DELIVERY)
            pipeline.stage(bucket="data", run_id=run_id)
        before = self.files()
        for name, reader in READERS.items():
            with (
                self.subTest(name),
                self.assertRaisesRegex(
                    pipeline.DeliveryError,
                    r"of run newer, and this is run older: .* Clear this run .* ingest\.extract",
                ),
            ):
                reader(bucket="data", run_id="older")
        self.assertEqual(self.files(), before)
        pipeline.extract(bucket="data", run_id="older", **DELIVERY)
        self.assertGreater(pipeline.check_delivery(bucket="data", run_id="older", today=DAY)["policies"], 0)

    def test_delivery_that_came_half_is_no_older_runs_either(self) -> None:
        pipeline.extract(bucket="data", run_id="older", **DELIVERY)
        Folder.lost = catalog.raw_key("claims")
        with self.assertRaises(ConnectionError):
            pipeline.extract(bucket="data", run_id="newer", **DELIVERY | {"seed": 8})
        with self.assertRaisesRegex(pipeline.DeliveryError, "of run newer"):
            pipeline.stage(bucket="data", run_id="older")

    def test_delivery_of_an_older_release_is_no_runs(self) -> None:
        pipeline.extract(bucket="data", run_id="older", **DELIVERY)
        manifest = Folder.root / catalog.MANIFEST
        stated = json.loads(manifest.read_text())
        del stated["run_id"]
        manifest.write_text(json.dumps(stated))
        with self.assertRaisesRegex(pipeline.DeliveryError, "of run None"):
            pipeline.stage(bucket="data", run_id="older")


class CleanUp(unittest.TestCase):
    function: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.function = staticmethod(
            DagBag(DAGS / "insurance").dags["insurance_etl"].get_task("clean_up").python_callable
        )

    def removed(self, **states: str | None) -> int:
        """What is removed where the tasks beside the clean-up have these states."""
        instance = SimpleNamespace(
            dag_id="insurance_etl",
            run_id="r",
            task_id="clean_up",
            get_task_states=lambda dag_id, run_ids: {
                run_id: {"clean_up": "running", **states} for run_id in run_ids if dag_id == "insurance_etl"
            },
        )
        known = {
            "get_current_context": lambda: {"ti": instance},
            "workflow_settings": lambda: SimpleNamespace(data_bucket="data"),
        }
        with (
            mock.patch.dict(self.function.__globals__, known),
            mock.patch.object(pipeline, "clean_up", return_value=7),
        ):
            return int(self.function(prefix="insurance/runs/insurance_etl/r"))

    def test_what_the_jobs_needed_goes_when_the_run_has_succeeded(self) -> None:
        self.assertEqual(self.removed(train="success", score="success"), 7)

    def test_what_a_cleared_task_would_read_stays_when_it_has_failed(self) -> None:
        self.assertEqual(self.removed(train="success", score="failed"), 0)
        self.assertEqual(self.removed(train="failed", score="upstream_failed"), 0)
        self.assertEqual(self.removed(train="success", score=None), 0)


if __name__ == "__main__":
    unittest.main()

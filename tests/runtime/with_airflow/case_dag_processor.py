"""The dag-processor at a switch, with real parsing processes and a database of its own."""

from __future__ import annotations

import os
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = tempfile.TemporaryDirectory()
os.environ |= {
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": HOME.name,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME.name}/airflow.db",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "0",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": f"{HOME.name}/logs",
}

from airflow import settings  # noqa: E402
from airflow.models import import_all_models  # noqa: E402
from airflow.models.base import Base  # noqa: E402
from airflow.models.dag import DagModel  # noqa: E402
from airflow.models.dag_version import DagVersion  # noqa: E402
from airflow.models.dagbundle import DagBundleModel  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from sqlalchemy import delete, select, update  # noqa: E402

from runtime.bundle import ReleaseBundle  # noqa: E402
from runtime.dag_processor import ReleaseProcessorManager  # noqa: E402
from tests.runtime.with_airflow.releases import Ssm, stage  # noqa: E402

BUNDLE = "updraft"
LIMIT_SECONDS = 60
DAG = "from airflow.sdk import DAG\n{before}\nd = DAG({name!r}, description={text!r})\n"


def dag(name: str, text: str, before: str = "") -> str:
    return DAG.format(name=name, text=text, before=before)


class DagProcessorTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        import_all_models()
        Base.metadata.create_all(settings.engine)

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.releases = Path(folder.name)
        self.ssm = Ssm()
        with create_session() as session:
            for model in (DagVersion, DagModel, DagBundleModel):
                session.execute(delete(model))
            session.add(DagBundleModel(name=BUNDLE))
        bundle = ReleaseBundle(
            name=BUNDLE, pointer_parameter="/p", releases_directory=folder.name, refresh_interval=0
        )
        bundle._ssm = self.ssm
        bundle._asked_at = float("-inf")
        self.manager = ReleaseProcessorManager(max_runs=-1)
        self.manager.prepare_process_context()
        self.manager._dag_bundles = [bundle]
        self.known_files: dict[str, Any] = {}
        self.addCleanup(self._kill)

    def _kill(self) -> None:
        self.manager.terminate()
        self.manager.end()

    def point(self, **files: str) -> str:
        version = stage(self.releases, {f"{name}.py": text for name, text in files.items()})
        self.ssm.history.append(version)
        return version

    def step(self) -> None:
        """One turn of Airflow's own loop, without what needs other parts of Airflow."""
        manager = self.manager
        manager._refresh_dag_bundles(known_files=self.known_files)
        if not manager._file_queue:
            manager.prepare_file_queue(known_files=self.known_files)
        manager._start_new_processes()
        manager._service_processor_sockets(timeout=0.1)
        manager._collect_results()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not done():
            assert time.monotonic() < deadline, (self.served(), self.manager._processors)
            self.step()

    def served(self) -> dict[str, str | None]:
        with create_session() as session:
            found = select(DagModel.dag_id, DagModel.bundle_version).where(DagModel.is_stale.is_(False))
            return dict(session.execute(found).all())

    def is_served(self, version: str, *names: str) -> Callable[[], bool]:
        return lambda: self.served() == dict.fromkeys(names, version)

    def test_every_file_is_parsed_at_a_switch_there_and_back(self) -> None:
        first = self.point(a=dag("a", "1"), b=dag("b", "same"))
        self.until(self.is_served(first, "a", "b"))
        second = self.point(a=dag("a", "2"), b=dag("b", "same"))
        self.until(self.is_served(second, "a", "b"))
        self.ssm.history.append(first)
        self.until(self.is_served(first, "a", "b"))

    def test_dag_that_left_its_file_is_stale_at_once(self) -> None:
        first = self.point(a=dag("a", "1") + "e = DAG('e')\n", b=dag("b", "1"))
        self.until(self.is_served(first, "a", "b", "e"))
        second = self.point(a=dag("a", "2"))
        self.until(self.is_served(second, "a"))

    def test_parse_that_a_switch_overtakes_is_never_stored(self) -> None:
        first = self.point(a=dag("a", "1", before="import time; time.sleep(600)"), b=dag("b", "1"))
        self.until(lambda: self.served() == {"b": first})
        [slow] = self.manager._processors.values()
        second = self.point(a=dag("a", "2"), b=dag("b", "2"))
        self.until(self.is_served(second, "a", "b"))
        assert not slow.is_ready or slow.parsing_result is None

    def test_parse_of_a_version_that_another_dag_processor_left_is_dropped(self) -> None:
        first = self.point(a=dag("a", "1"))
        self.manager._refresh_dag_bundles(known_files=self.known_files)
        self.manager._start_new_processes()
        with create_session() as session:
            session.execute(update(DagBundleModel).values(version="f" * 16))
        [process] = self.manager._processors.values()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not process.is_ready:
            assert time.monotonic() < deadline
            self.manager._service_processor_sockets(timeout=0.1)
        assert process.parsing_result is not None
        self.manager._collect_results()
        assert self.served() == {}
        with create_session() as session:
            session.execute(update(DagBundleModel).values(version=first))
        self.until(self.is_served(first, "a"))

    def test_files_that_cannot_have_changed_are_not_parsed_again(self) -> None:
        version = self.point(a=dag("a", "1"))
        self.until(self.is_served(version, "a"))
        for _ in range(10):
            self.step()
        assert [stat.run_count for stat in self.manager._file_stats.values()] == [1]
        assert not self.manager._processors

    def test_callback_is_not_ended_by_a_switch(self) -> None:
        version = self.point(a=dag("a", "1"))
        self.until(self.is_served(version, "a"))
        [file] = self.known_files[BUNDLE]
        self.manager._callback_to_execute[file] = []
        assert not self.manager._is_parse_of(file, BUNDLE)


if __name__ == "__main__":
    unittest.main()

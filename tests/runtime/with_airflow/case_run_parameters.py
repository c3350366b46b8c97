"""A run with a key that its DAG doesn't know is refused before it is there, on the way that every entrance takes."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

HOME = tempfile.TemporaryDirectory()
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{HOME.name}/airflow.db"
# As the image has it on its Python path: Airflow imports the settings by their name.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docker" / "airflow"))

from airflow import settings  # noqa: E402
from airflow.api.common.trigger_dag import trigger_dag  # noqa: E402
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: E402
from airflow.exceptions import ParamValidationError  # noqa: E402
from airflow.models import import_all_models  # noqa: E402
from airflow.models.base import Base  # noqa: E402
from airflow.models.dagbundle import DagBundleModel  # noqa: E402
from airflow.models.dagrun import DagRun  # noqa: E402
from airflow.utils.db import synchronize_log_template  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from airflow.utils.types import DagRunTriggeredByType, DagRunType  # noqa: E402
from sqlalchemy import func, select  # noqa: E402

BUNDLE = "updraft"
DAGS = """
from airflow.sdk import DAG, Param
with DAG("typed", params={"max_depth": Param(6, type="integer", maximum=16), "n_estimators": Param(60)}): ...
with DAG("open"): ...
"""


def trigger(dag_id: str, conf: dict[str, Any] | None) -> DagRun:
    run = trigger_dag(
        dag_id=dag_id,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        conf=conf,
        replace_microseconds=False,
    )
    assert run is not None
    return run


def count() -> int:
    with create_session() as session:
        return session.scalar(select(func.count()).select_from(DagRun)) or 0


class RunParametersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        import_all_models()
        Base.metadata.create_all(settings.engine)
        synchronize_log_template()
        folder = Path(HOME.name) / "dags"
        folder.mkdir()
        (folder / "some.py").write_text(DAGS)
        with create_session() as session:
            session.add(DagBundleModel(name=BUNDLE))
        sync_bag_to_db(DagBag(folder, bundle_name=BUNDLE), BUNDLE, None)

    def test_known_parameters_and_none_at_all_start_a_run(self) -> None:
        self.assertEqual(trigger("typed", {"max_depth": 3}).conf, {"max_depth": 3})
        self.assertEqual(trigger("typed", None).conf, {})

    def test_misspelt_or_extra_parameter_starts_none_and_says_which_there_are(self) -> None:
        before = count()
        for conf, said in (
            (
                {"max_deph": 3},
                "typed has no max_deph; it has max_depth, n_estimators; did you mean max_depth?",
            ),
            ({"max_depth": 3, "seed": 1}, "typed has no seed; it has max_depth, n_estimators"),
        ):
            with self.assertRaises(ParamValidationError) as refused:
                trigger("typed", conf)
            self.assertEqual(str(refused.exception), said)
        self.assertEqual(count(), before)

    def test_value_out_of_its_type_is_airflows_to_refuse(self) -> None:
        with self.assertRaises(ParamValidationError):
            trigger("typed", {"max_depth": 17})

    def test_dag_without_parameters_takes_any_conf(self) -> None:
        self.assertEqual(trigger("open", {"anything": 1}).conf, {"anything": 1})


if __name__ == "__main__":
    unittest.main()

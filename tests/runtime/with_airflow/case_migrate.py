"""The migration task: what it makes of a schema's revision, and what it does before and after Airflow's own command.

The versions themselves go forth and back on a real database in `benchmarks/upgrade`.
"""

import contextlib
import io
import subprocess
import unittest
from typing import Any
from unittest.mock import call, create_autospec, patch

from airflow.utils.db import _REVISION_HEADS_MAP, _get_script_object

from runtime import migrate
from runtime.migrate import Schema

HEAD = _get_script_object().get_current_head()
FAB_HEAD = migrate.version_tables()["alembic_version_fab"].get_current_head()
OLDER = _REVISION_HEADS_MAP["3.2.0"]


def at(revision: str | None, fab: str | None = FAB_HEAD) -> dict[str, str | None]:
    return {"alembic_version": revision, "alembic_version_fab": fab}


class Comparison(unittest.TestCase):
    def test_each_state_is_told_by_the_revisions(self) -> None:
        for found, expected in (
            (at(None, None), Schema.EMPTY),
            (at(HEAD), Schema.SAME),
            (at(OLDER), Schema.OLDER),
            (at(HEAD, "6709f7a774b9"), Schema.OLDER),
            (at(HEAD, None), Schema.OLDER),
            (at("of the future"), Schema.NEWER),
            (at(HEAD, "of the future"), Schema.NEWER),
        ):
            with self.subTest(found=found):
                self.assertIs(migrate.compare(found), expected)


class Task(unittest.TestCase):
    def setUp(self) -> None:
        self.run_command = create_autospec(subprocess.run)
        self.ensure_admin = self.started(patch.object(migrate, "ensure_admin", autospec=True))
        for name in ("wait_for_database", "connect", "ensure_metrics_role"):
            self.started(patch.object(migrate, name, autospec=True))
        secrets = {
            "UPDRAFT_ADMIN_USERNAME": "admin",
            "UPDRAFT_ADMIN_PASSWORD": "secret",
            "UPDRAFT_METRICS_DATABASE_USER": "load_metric",
        }
        self.started(patch.object(subprocess, "run", self.run_command))
        self.started(patch.dict("os.environ", secrets))

    def started(self, patcher: Any) -> Any:
        """What a patch puts in place, until the test's end."""
        self.addCleanup(patcher.stop)
        return patcher.start()

    def ends(self, found: dict[str, str | None], *arguments: str) -> tuple[int, str]:
        said = io.StringIO()
        with (
            patch.object(migrate, "revisions", autospec=True, return_value=found),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(said),
        ):
            return migrate.main(arguments), said.getvalue()

    def test_newer_schema_is_left_alone_and_named(self) -> None:
        for arguments in ((), ("--services-stopped",)):
            code, said = self.ends(at("of the future"), *arguments)
            self.assertEqual(code, migrate.EXIT_SCHEMA_IS_NEWER)
            self.assertIn("of the future", said)
            self.assertIn("Nothing was changed", said)
        self.run_command.assert_not_called()
        self.ensure_admin.assert_not_called()

    def test_older_schema_waits_for_the_services_to_stop(self) -> None:
        code, said = self.ends(at(OLDER))
        self.assertEqual(code, migrate.EXIT_SERVICES_MUST_STOP)
        self.assertIn(OLDER, said)
        self.run_command.assert_not_called()
        self.assertEqual(self.ends(at(OLDER), "--services-stopped")[0], 0)
        self.run_command.assert_called_once_with(["airflow", "db", "migrate"], check=True)
        self.ensure_admin.assert_called_once_with("admin", "secret")

    def test_empty_and_equal_schemas_need_no_stop(self) -> None:
        for found in (at(None, None), at(HEAD)):
            self.assertEqual(self.ends(found)[0], 0)

    def test_failed_migration_goes_back_to_the_revision_that_it_found(self) -> None:
        failed = subprocess.CalledProcessError(1, "airflow db migrate")
        self.run_command.side_effect = [failed, None]
        with self.assertRaises(subprocess.CalledProcessError):
            self.ends(at(OLDER), "--services-stopped")
        back = ["airflow", "db", "downgrade", "--to-revision", OLDER, "--yes"]
        self.assertEqual(self.run_command.call_args_list[1], call(back, check=True))
        self.ensure_admin.assert_not_called()

    def test_way_back_names_the_versions_of_the_older_image(self) -> None:
        packages = ("apache-airflow==3.2.2", "apache-airflow-providers-fab==3.10.2")
        self.assertEqual(self.ends(at(HEAD), "--back-to", *packages)[0], 0)
        self.assertEqual(
            [given.args[0] for given in self.run_command.call_args_list],
            [
                ["airflow", "db", "downgrade", "--to-version", "3.2.2", "--yes"],
                ["airflow", "fab-db", "downgrade", "--to-version", "3.10.2", "--yes"],
            ],
        )

    def test_way_back_of_something_else_is_refused_before_anything_is_done(self) -> None:
        with self.assertRaisesRegex(ValueError, "celery has no schema"):
            self.ends(at(HEAD), "--back-to", "apache-airflow==3.2.2", "celery==5.6.3")
        self.run_command.assert_not_called()


if __name__ == "__main__":
    unittest.main()

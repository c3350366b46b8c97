"""The exchange of tables on a real PostgreSQL, by Airflow's hook and the connection that the stack makes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from insurance import warehouse

COLUMNS = {"policy_id": "VARCHAR", "as_of": "DATE", "premium_usd": "DOUBLE", "claims": "INTEGER"}
GOOD = ["P1,2026-11-21,100.5,0", "P2,2026-11-21,80.25,3"]


class Exchange(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="updraft-warehouse-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.connection = PostgresHook("warehouse").get_conn()
        self.addCleanup(self.connection.close)
        self.query("DROP SCHEMA IF EXISTS insurance CASCADE")

    def query(self, text: str) -> Any:
        with PostgresHook("warehouse").get_conn() as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else None

    def source(self, name: str, lines: list[str], **changes: Any) -> warehouse.Source:
        file = self.folder / f"{name}.csv"
        columns = changes.get("columns", COLUMNS)
        file.write_text("\n".join([",".join(columns), *lines]) + "\n")
        return warehouse.Source(file, columns, changes.get("key", ("policy_id",)))

    def exchange(self, run_id: str = "run-1", **sources: warehouse.Source) -> dict[str, int]:
        return warehouse.exchange(self.connection, sources, run_id=run_id)

    def test_connection_is_encrypted_and_its_role_is_no_superuser(self) -> None:
        (row,) = self.query(
            "SELECT current_user, current_database(), rolsuper OR rolcreaterole OR rolcreatedb "
            "FROM pg_roles WHERE rolname = current_user"
        )
        self.assertEqual(row, ("warehouse", "warehouse", False))
        told = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"])
        self.assertEqual(told["extra"]["sslmode"], "verify-full")

    def test_rows_types_and_keys_are_there_and_the_load_is_noted(self) -> None:
        self.assertEqual(self.exchange(policies=self.source("policies", GOOD)), {"policies": 2})
        rows = self.query(
            "SELECT policy_id, as_of::text, premium_usd, claims FROM insurance.policies ORDER BY 1"
        )
        self.assertEqual(rows, [("P1", "2026-11-21", 100.5, 0), ("P2", "2026-11-21", 80.25, 3)])
        key = self.query(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'insurance.policies'::regclass AND contype = 'p'"
        )
        self.assertEqual(key, [("policies_pkey",)])
        self.assertEqual(
            self.query("SELECT run_id, table_name, row_count FROM insurance.loads"),
            [("run-1", "policies", 2)],
        )

    def test_repeating_a_run_leaves_the_same_rows(self) -> None:
        for _ in range(2):
            self.exchange(policies=self.source("policies", GOOD))
        self.assertEqual(self.query("SELECT count(*) FROM insurance.policies"), [(2,)])
        self.assertEqual(self.query("SELECT count(*) FROM insurance.loads"), [(1,)])

    def test_failure_at_the_last_table_leaves_every_table_as_it_was(self) -> None:
        self.exchange(policies=self.source("policies", GOOD), claims=self.source("claims", GOOD[:1]))
        new = [*GOOD, "P3,2026-11-22,70,1"]
        for name, bad in (
            ("not a number", [*GOOD, "P4,2026-11-22,none,1"]),
            ("key twice", [*GOOD, GOOD[0]]),
            ("column too many", [*GOOD, GOOD[0] + ",1"]),
        ):
            with self.subTest(name), self.assertRaises(psycopg.Error):
                self.exchange(
                    "run-2", policies=self.source("policies", new), claims=self.source("claims", bad)
                )
        self.assertEqual(self.query("SELECT count(*) FROM insurance.policies"), [(2,)])
        self.assertEqual(self.query("SELECT count(*) FROM insurance.claims"), [(1,)])
        tables = self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'insurance' ORDER BY 1")
        self.assertEqual(tables, [("claims",), ("loads",), ("policies",)])
        self.assertEqual(self.query("SELECT DISTINCT run_id FROM insurance.loads"), [("run-1",)])

    def test_table_may_get_other_columns(self) -> None:
        self.exchange(policies=self.source("policies", GOOD))
        columns = {**COLUMNS, "region": "VARCHAR"}
        self.exchange("run-2", policies=self.source("policies", [f"{GOOD[0]},Marlow"], columns=columns))
        self.assertEqual(self.query("SELECT policy_id, region FROM insurance.policies"), [("P1", "Marlow")])

    def test_readers_see_the_old_rows_or_the_new_ones_and_never_none(self) -> None:
        self.exchange(policies=self.source("policies", GOOD))
        seen, done = set(), threading.Event()

        def read() -> None:
            with PostgresHook("warehouse").get_conn() as connection:
                connection.autocommit = True
                while not done.is_set():
                    seen.add(connection.execute("SELECT count(*) FROM insurance.policies").fetchone()[0])

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(10):
            lines = GOOD if number % 2 else [*GOOD, "P3,2026-11-22,70,1"]
            self.exchange(f"run-{number}", policies=self.source("policies", lines))
        done.set()
        reader.join()
        self.assertLessEqual(seen, {2, 3})


if __name__ == "__main__":
    unittest.main()

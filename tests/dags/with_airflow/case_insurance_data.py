"""The insurance data: what the source delivers, what the checks notice, what the features know."""

from __future__ import annotations

import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

import pandas as pd
from insurance import catalog, checks, source, tables, transform
from insurance.lake import database

DAY = date(2026, 11, 21)
SIZE = 3_000
# What each defect is noticed by: the places that are named. `unknown region` passes the delivery's checks.
NOTICED = {
    "missing column": {"policies"},
    "wrong type": {"policies.annual_mileage_km"},
    "empty value": {"customers.born_on"},
    "duplicates": {"policies.policy_id", "claims.policy_id"},
    "orphans": {"claims.policy_id"},
    "out of range": {"claims.amount_usd"},
    "unknown value": {"policies.parking"},
    "future dates": {"claims"},
    "truncated": {"claims"},
    "stale": {"delivery"},
}


class Book:
    """One delivery in a folder, taken as far as a test wants."""

    def __init__(self, folder: Path, *, size: int = SIZE, defect: str | None = None) -> None:
        self.folder = folder
        self.rows = source.deliver(folder, policies=size, seed=7, as_of=DAY, defect=defect)
        self.files = {table: folder / f"{table}.csv" for table in catalog.DELIVERED}

    def check(self) -> dict[str, int]:
        with database(self.folder) as connection:
            return checks.check_delivery(
                connection, self.files, self.folder / source.MANIFEST_FILE, today=DAY
            )

    @contextmanager
    def transformed(self) -> Iterator[Any]:
        """A database with the views of the staged, enriched and feature tables."""
        with database(self.folder) as connection:
            for table, file in transform.stage(connection, self.files, self.folder).items():
                transform.view(connection, f"staged_{table}", file)
            enriched, features = self.folder / "enriched.parquet", self.folder / "features.parquet"
            transform.enrich(connection, enriched)
            transform.view(connection, "policies", enriched)
            transform.build_features(connection, features, as_of=DAY)
            transform.view(connection, "policy_features", features)
            yield connection


class InsuranceCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="updraft-insurance-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def book(self, **options: Any) -> Book:
        folder = self.folder / f"book-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Book(folder, **options)

    def violations(self, action: Any) -> list[checks.Violation]:
        with self.assertRaises(checks.DataQualityError) as raised:
            action()
        return list(raised.exception.violations)


class Source(InsuranceCase):
    def test_same_seed_and_size_deliver_the_same_bytes_and_another_seed_others(self) -> None:
        first, second = self.book(), self.book()
        for table in catalog.DELIVERED:
            self.assertEqual(first.files[table].read_bytes(), second.files[table].read_bytes())
        source.deliver(second.folder, policies=SIZE, seed=8, as_of=DAY)
        self.assertNotEqual(first.files["claims"].read_bytes(), second.files["claims"].read_bytes())

    def test_a_book_of_several_chunks_has_every_policy_once_and_no_customer_twice(self) -> None:
        self.addCleanup(setattr, source, "CHUNK_POLICIES", source.CHUNK_POLICIES)
        source.CHUNK_POLICIES = 1_000
        book = self.book(size=2_500)
        self.assertEqual(book.check(), book.rows)
        self.assertEqual(book.rows["policies"], 2_500)
        self.assertEqual(
            pd.read_csv(book.files["customers"])["customer_id"].nunique(), book.rows["customers"]
        )

    def test_the_book_is_correlated_as_a_real_one(self) -> None:
        book = self.book(size=20_000)
        policies = pd.read_csv(book.files["policies"], index_col="policy_id")
        claims = pd.read_csv(book.files["claims"]).groupby("policy_id").size()
        policies["claims"] = claims.reindex(policies.index, fill_value=0)
        by_class = policies.groupby("vehicle_class")["claims"].mean()
        self.assertGreater(by_class["sports"], 1.3 * by_class["family"])
        far = policies["annual_mileage_km"] > policies["annual_mileage_km"].quantile(0.9)
        self.assertGreater(policies.loc[far, "claims"].mean(), 1.5 * policies.loc[~far, "claims"].mean())
        self.assertGreater(policies["premium_usd"].corr(policies["claims"]), 0.05)
        self.assertGreater(policies["premium_usd"].corr(policies["vehicle_value_usd"]), 0.4)

    def test_every_defect_of_the_catalog_is_made_and_noticed(self) -> None:
        self.assertEqual(set(NOTICED) | {"unknown region"}, set(catalog.DEFECT_NAMES))
        for defect, places in NOTICED.items():
            with self.subTest(defect):
                book = self.book(defect=defect)
                self.assertEqual({found.place for found in self.violations(book.check)}, places)

    def test_unknown_defect_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "'typo' is not one of missing column"):
            self.book(defect="typo")


class Checks(InsuranceCase):
    def test_good_delivery_passes_and_its_rows_are_counted(self) -> None:
        book = self.book()
        self.assertEqual(book.check(), book.rows)

    def test_every_violation_is_named_at_once_with_rows(self) -> None:
        book = self.book()
        customers = book.files["customers"]
        lines = customers.read_text().splitlines()
        lines[1] = lines[1].replace("C000000001", "C000000002")
        customers.write_text("\n".join(lines) + "\n")
        claims = pd.read_csv(book.files["claims"])
        claims.loc[0, "amount_usd"] = -1
        claims.drop(columns="status").to_csv(book.files["claims"], index=False)
        book.files["policies"].write_text(book.files["policies"].read_text() + '"broken\n')
        found = self.violations(book.check)
        told = str(checks.DataQualityError(found))
        self.assertIn(f"{len(found)} violations; nothing was published:\n", told)
        for line in (
            "- customers.customer_id: 1 keys that appear more than once (C000000002)",
            "- claims: lacks the column status",
            "- policies: is no readable CSV file: ",
        ):
            self.assertIn(line, told)

    def test_delivery_with_an_older_date_is_stale(self) -> None:
        book = self.book()
        with database(book.folder) as connection:
            found = self.violations(
                lambda: checks.check_delivery(
                    connection,
                    book.files,
                    book.folder / source.MANIFEST_FILE,
                    today=DAY + checks.OLDEST_DELIVERY + timedelta(days=1),
                )
            )
        self.assertEqual([violation.place for violation in found], ["delivery"])

    def test_no_retry_is_spent_on_bad_data(self) -> None:
        from airflow.sdk.exceptions import AirflowFailException

        self.assertTrue(issubclass(checks.DataQualityError, AirflowFailException))

    def test_good_tables_pass_and_their_figures_are_told(self) -> None:
        with self.book().transformed() as connection:
            figures = checks.check_curated(connection)
        self.assertGreater(figures["claims_usd"], 0)
        self.assertTrue(0.05 < figures["claim_share"] < 0.2)

    def test_region_without_reference_is_noticed_after_the_join(self) -> None:
        book = self.book(defect="unknown region")
        self.assertEqual(book.check(), book.rows)
        with book.transformed() as connection:
            found = self.violations(lambda: checks.check_curated(connection))
        self.assertIn(checks.Violation("policies.region", found[0].problem, ("Atlantis",)), found)

    def test_lost_repeated_and_miscounted_policies_are_noticed(self) -> None:
        with self.book().transformed() as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE spoilt AS FROM policies WHERE policy_id <> 'P000000005' "
                "UNION ALL FROM policies WHERE policy_id = 'P000000009'"
            )
            connection.execute("UPDATE spoilt SET claims_usd = claims_usd + 1 WHERE policy_id = 'P000000001'")
            connection.execute("CREATE OR REPLACE VIEW policies AS FROM spoilt")
            found = {violation.place: violation for violation in self.violations(
                lambda: checks.check_curated(connection))}  # fmt: skip
        self.assertEqual(found["policies"].examples, ("P000000005", "P000000009"))
        self.assertIn("policies.claims_usd", found)


class Features(InsuranceCase):
    def test_every_feature_is_made_and_each_encoded_value_is_known(self) -> None:
        with self.book().transformed() as connection:
            columns = [name for name, *_ in connection.execute("DESCRIBE policy_features").fetchall()]
        self.assertEqual(
            columns, ["policy_id", "customer_id", "as_of", "split", *transform.FEATURES, transform.LABEL]
        )
        allowed = {column.name: column.allowed for table in tables.DELIVERED for column in table.columns}
        for name, values in transform.INDICATORS.items():
            self.assertEqual(set(allowed[name]), set(values))

    def test_features_of_the_past_know_nothing_of_what_came_after(self) -> None:
        book = self.book()
        with book.transformed() as connection:
            before = connection.execute(
                "SELECT * EXCLUDE (label) FROM policy_features WHERE split <> 'current' ORDER BY policy_id"
            ).fetchall()
        claims = pd.read_csv(book.files["claims"])
        known = claims["reported_on"] < (DAY - timedelta(days=365)).isoformat()
        claims[known].to_csv(book.files["claims"], index=False)
        with book.transformed() as connection:
            after = connection.execute(
                "SELECT * EXCLUDE (label) FROM policy_features WHERE split <> 'current' ORDER BY policy_id"
            ).fetchall()
            (labels,) = connection.execute("SELECT sum(label) FROM policy_features").fetchone()
        self.assertEqual(before, after)
        self.assertEqual(labels, 0)

    def test_a_customer_is_in_one_split_and_every_policy_is_scored(self) -> None:
        with self.book().transformed() as connection:
            (most,) = connection.execute(
                "SELECT max(splits) FROM (SELECT count(DISTINCT split) AS splits FROM policy_features "
                "WHERE split <> 'current' GROUP BY customer_id)"
            ).fetchone()
            rows = transform.write_matrices(connection, self.folder)
        self.assertEqual(most, 1)
        self.assertEqual(rows["current"], SIZE)
        keys = (self.folder / transform.KEYS_FILE).read_text().split()
        self.assertEqual(keys, sorted(keys))
        self.assertEqual(len(keys), SIZE)

    def test_scores_are_joined_line_by_line_or_not_at_all(self) -> None:
        keys, scores = self.folder / "keys.csv", self.folder / "scores.csv"
        keys.write_text("P1\nP2\n")
        made = self.folder / "scores.parquet"
        with database(self.folder) as connection:
            for text, wanted in (("0.25\n0.75\n", 2), ("0.25\n", None)):
                scores.write_text(text)
                arguments = {"as_of": DAY, "model_package_arn": "arn:aws:sagemaker:::m/1"}
                if wanted is None:
                    with self.assertRaisesRegex(ValueError, "1 scores came for 2 policies"):
                        transform.join_scores(connection, keys, scores, made, **arguments)
                else:
                    self.assertEqual(
                        transform.join_scores(connection, keys, scores, made, **arguments), wanted
                    )
                    found = connection.execute(
                        f"SELECT policy_id, claim_probability FROM '{made}'"
                    ).fetchall()
                    self.assertEqual(found, [("P1", 0.25), ("P2", 0.75)])

    def test_leap_day_has_a_day_a_year_before(self) -> None:
        self.assertEqual(transform._year_before(date(2028, 2, 29)), date(2027, 2, 28))


if __name__ == "__main__":
    unittest.main()

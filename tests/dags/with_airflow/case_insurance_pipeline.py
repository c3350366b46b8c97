"""The pipeline's steps from the delivery to the published scores, on S3 and PostgreSQL, without Airflow's services."""

from __future__ import annotations

import sys
import unittest
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

import boto3
from airflow.providers.postgres.hooks.postgres import PostgresHook
from insurance import catalog, checks, pipeline, transform

BUCKET, RUN, PREFIX = "data", "one", "insurance/runs/insurance_etl/one"
DAY = date(2026, 11, 21)
SIZE = 1_500
ARN = "arn:aws:sagemaker:us-east-1:000000000000:model-package/updraft-local-insurance/1"


class Pipeline(unittest.TestCase):
    s3: ClassVar[Any]
    loaded: ClassVar[dict[str, int]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.s3 = boto3.client("s3")
        with PostgresHook("warehouse").get_conn() as connection:
            connection.execute("DROP SCHEMA IF EXISTS insurance CASCADE")
        cls.to_features()
        pipeline.check_curated(bucket=BUCKET, run_id=RUN)
        cls.loaded = pipeline.load_warehouse(bucket=BUCKET, run_id=RUN)
        pipeline.load_lake(bucket=BUCKET, run_id=RUN)

    @staticmethod
    def to_features(**options: Any) -> None:
        """Deliver and transform, without the checks."""
        given = {"policies": SIZE, "seed": 7, "as_of": DAY, "defect": None} | options
        pipeline.extract(bucket=BUCKET, run_id=RUN, **given)
        pipeline.stage(bucket=BUCKET, run_id=RUN)
        pipeline.enrich(bucket=BUCKET, run_id=RUN)
        pipeline.build_features(bucket=BUCKET, run_id=RUN, as_of=DAY)

    def curated(self) -> dict[str, str]:
        """The published objects, by what is in them."""
        return {
            table: self.s3.head_object(Bucket=BUCKET, Key=catalog.curated_key(table))["ETag"]
            for table in catalog.CURATED
        }

    def count(self, table: str) -> int:
        with PostgresHook("warehouse").get_conn() as connection:
            return int(connection.execute(f"SELECT count(*) FROM insurance.{table}").fetchone()[0])

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def test_a_sound_delivery_is_checked_and_published(self) -> None:
        self.assertEqual(self.loaded["policies"], SIZE)
        self.assertEqual({table: self.count(table) for table in self.loaded}, self.loaded)
        rows = pipeline.check_delivery(bucket=BUCKET, run_id=RUN, today=DAY)
        self.assertEqual(rows["customers"], self.loaded["customers"])
        self.assertEqual(len(self.curated()), len(catalog.CURATED))

    def test_spoilt_delivery_is_in_the_landing_zone_and_nowhere_else(self) -> None:
        before = self.curated()
        pipeline.extract(bucket=BUCKET, run_id=RUN, policies=SIZE, seed=8, as_of=DAY, defect="orphans")
        self.addCleanup(self.to_features)
        with self.assertRaises(checks.DataQualityError):
            pipeline.check_delivery(bucket=BUCKET, run_id=RUN, today=DAY)
        self.assertEqual(self.curated(), before)

    def test_defect_that_only_the_join_shows_is_staged_and_not_published(self) -> None:
        before = self.curated()
        self.to_features(defect="unknown region")
        self.addCleanup(self.to_features)
        with self.assertRaisesRegex(checks.DataQualityError, "Atlantis"):
            pipeline.check_curated(bucket=BUCKET, run_id=RUN)
        self.assertEqual(self.curated(), before)

    def test_scores_belong_to_their_policies_and_what_the_jobs_needed_goes(self) -> None:
        rows = pipeline.write_matrices(bucket=BUCKET, prefix=PREFIX)
        self.assertEqual(rows[transform.CURRENT], SIZE)
        body = "".join(f"{number / SIZE:.6f}\n" for number in range(SIZE)).encode()
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/scores/current.csv.out", Body=body)
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/models/m/output/model.tar.gz", Body=b"model")
        published = pipeline.publish_scores(
            bucket=BUCKET, prefix=PREFIX, as_of=DAY, model_package_arn=ARN, run_id=RUN
        )
        self.assertEqual(published, {"policy_scores": SIZE})
        with PostgresHook("warehouse").get_conn() as connection:
            found = connection.execute(
                "SELECT policy_id, claim_probability, as_of, model_package_arn FROM insurance.policy_scores "
                "ORDER BY policy_id LIMIT 2"
            ).fetchall()
        self.assertEqual(found, [("P000000001", 0.0, DAY, ARN), ("P000000002", round(1 / SIZE, 6), DAY, ARN)])
        self.assertEqual(pipeline.clean_up(bucket=BUCKET, prefix=PREFIX), len(rows) + 2)
        self.assertEqual(self.keys(f"{PREFIX}/"), [f"{PREFIX}/models/m/output/model.tar.gz"])
        self.assertEqual(pipeline.clean_up(bucket=BUCKET, prefix=PREFIX), 0)


if __name__ == "__main__":
    unittest.main()

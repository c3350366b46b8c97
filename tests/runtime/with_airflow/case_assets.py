"""Assets have the address of what they stand for, and a name where no platform runs."""

from __future__ import annotations

import os
import unittest
from unittest import mock

from runtime.assets import data_asset, table_asset

PLATFORM = {
    "UPDRAFT_DATA_BUCKET": "updraft-data",
    "UPDRAFT_DATABASE_HOST": "db.example",
    "UPDRAFT_DATABASE_PORT": "5433",
}


class Assets(unittest.TestCase):
    def test_assets_name_bucket_and_database_of_the_environment(self) -> None:
        with mock.patch.dict(os.environ, PLATFORM):
            self.assertEqual(data_asset("a/b.parquet").uri, "s3://updraft-data/a/b.parquet")
            self.assertEqual(
                table_asset("sales", "orders").uri, "postgres://db.example:5433/warehouse/sales/orders"
            )

    def test_assets_can_be_declared_while_no_platform_runs(self) -> None:
        with mock.patch.dict(os.environ, dict.fromkeys(PLATFORM, "")):
            self.assertEqual(data_asset("a/b.parquet").uri, "s3://data/a/b.parquet")
            self.assertEqual(
                table_asset("sales", "orders").uri, "postgres://database:5432/warehouse/sales/orders"
            )


if __name__ == "__main__":
    unittest.main()

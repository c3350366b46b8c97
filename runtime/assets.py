"""Assets by their place: what a task reads and writes, as DAG authors name it in `inlets` and `outlets`."""

from __future__ import annotations

import os

from airflow.sdk import Asset

# Where a variable is absent, as in a check of DAG files without a platform; such an asset only has to have a name.
DEFAULTS = {
    "UPDRAFT_DATA_BUCKET": "data",
    "UPDRAFT_DATABASE_HOST": "database",
    "UPDRAFT_DATABASE_PORT": "5432",
}
WAREHOUSE = "warehouse"


def data_asset(key: str) -> Asset:
    """An object in the environment's data bucket, or all under a prefix that ends with a slash."""
    return Asset(f"s3://{_variable('UPDRAFT_DATA_BUCKET')}/{key}")


def table_asset(schema: str, table: str) -> Asset:
    """A table of the `warehouse` database."""
    place = f"{_variable('UPDRAFT_DATABASE_HOST')}:{_variable('UPDRAFT_DATABASE_PORT')}"
    return Asset(f"postgres://{place}/{WAREHOUSE}/{schema}/{table}")


def _variable(name: str) -> str:
    return os.environ.get(name) or DEFAULTS[name]

"""Files between the data bucket and DuckDB, which works on a task's own disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import duckdb

# A worker runs several tasks at once; what doesn't fit goes to the task's temporary folder.
MEMORY_LIMIT = "1GB"
THREADS = 2
MOST_KEYS_AT_ONCE = 1000


class Lake:
    """One bucket, and a temporary folder on this machine."""

    def __init__(self, bucket: str, folder: Path) -> None:
        self.folder = folder
        self._bucket = bucket
        self._s3 = boto3.client("s3")

    def fetch(self, key: str) -> Path:
        """Download an object; returns its file."""
        file = self.folder / key.replace("/", "_")
        self._s3.download_file(self._bucket, key, str(file))
        return file

    def keep(self, file: Path, key: str) -> None:
        """Upload a file; the object is there whole or not at all."""
        self._s3.upload_file(str(file), self._bucket, key)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket."""
        self._s3.copy({"Bucket": self._bucket, "Key": source}, self._bucket, target)

    def remove(self, prefix: str) -> int:
        """Delete every object below a prefix; returns how many there were."""
        if not prefix.endswith("/"):
            raise ValueError(f"prefix: {prefix!r} has to end with a slash")
        removed = 0
        for page in self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, PaginationConfig={"PageSize": MOST_KEYS_AT_ONCE}
        ):
            keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
            if keys:
                self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            removed += len(keys)
        return removed


@contextmanager
def lake(bucket: str) -> Iterator[Lake]:
    """A bucket with a folder that goes when the task ends."""
    with tempfile.TemporaryDirectory(prefix="insurance-") as folder:
        yield Lake(bucket, Path(folder))


@contextmanager
def database(folder: Path) -> Iterator[Any]:
    """A DuckDB database in memory that spills to the folder."""
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "threads": THREADS,
            "temp_directory": str(folder / "spill"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    try:
        yield connection
    finally:
        connection.close()


def write_parquet(connection: Any, query: str, file: Path) -> int:
    """Write a query's rows as Parquet; returns how many there are."""
    (rows,) = connection.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)").fetchone()
    return int(rows)

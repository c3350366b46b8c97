"""Measures assets by the kind of place that they have: rows, size, when they were created and last modified.

An exporter does it after the task has ended: neither a task nor its slot waits for a probe.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import duckdb
import psycopg2
from botocore.config import Config
from psycopg2 import sql

CONNECT_SECONDS = 3
STATEMENT_MILLISECONDS = 5_000
S3_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
# A prefix with more objects has a size, but no rows: each object costs requests.
MOST_OBJECTS_READ = 64
# CSV says nowhere how many rows it has, so all of it is read.
LARGEST_CSV_BYTES = 64 * 2**20
# Most footers fit: one request then gives the length and the footer.
FOOTER_BYTES = 64 * 1024
MAGIC = b"PAR1"


class Probes:
    """`measure` by an asset's URI; raises whatever the place answers."""

    def measure(self, uri: str) -> dict[str, float]:
        """`rows`, `size_bytes`, `created_at` and `modified_at` (Unix seconds), as far as the place tells them."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            return self._objects(parts.netloc, unquote(parts.path).lstrip("/"))
        if parts.scheme == "postgres":
            database, schema, table = unquote(parts.path).strip("/").split("/")
            return self._table(database, schema, table)
        return {}

    # S3

    @cached_property
    def _s3(self) -> Any:
        return boto3.client("s3", config=S3_CONFIG)

    def _objects(self, bucket: str, key: str) -> dict[str, float]:
        """The object of this key, or all under it as a folder; created is when the oldest version there is was written."""
        versions = [version for version in self._versions(bucket, key) if _is_within(version["Key"], key)]
        current = [version for version in versions if version["IsLatest"]]
        if not current:
            raise FileNotFoundError(f"s3://{bucket}/{key}: no such object, nor any under it")
        found: dict[str, float] = {
            "size_bytes": sum(version["Size"] for version in current),
            "modified_at": max(version["LastModified"] for version in current).timestamp(),
            "created_at": min(version["LastModified"] for version in versions).timestamp(),
        }
        if len(current) > 1 or current[0]["Key"] != key:
            found["objects"] = len(current)
        rows = self._rows(bucket, current)
        return found if rows is None else {"rows": rows, **found}

    def _versions(self, bucket: str, key: str) -> list[dict[str, Any]]:
        pages = self._s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, Prefix=key, PaginationConfig={"MaxItems": 10_000}
        )
        return [version for page in pages for version in page.get("Versions", [])]

    def _rows(self, bucket: str, objects: list[dict[str, Any]]) -> int | None:
        """Rows of all, None when one is of another kind or there is too much to read."""
        if len(objects) > MOST_OBJECTS_READ:
            return None
        if sum(each["Size"] for each in objects if _suffix(each) == ".csv") > LARGEST_CSV_BYTES:
            return None
        counts = []
        for each in objects:
            if _suffix(each) == ".parquet":
                counts.append(self._parquet_rows(bucket, each))
            elif _suffix(each) == ".csv":
                counts.append(self._csv_rows(bucket, each))
            # Spark's and SageMaker's markers have no rows.
            elif each["Size"] > 0:
                return None
        return sum(counts) if counts else None

    def _parquet_rows(self, bucket: str, each: Mapping[str, Any]) -> int:
        """From the footer alone: the file's last bytes are the footer, its length, and the magic number."""
        tail = self._tail(bucket, each["Key"], FOOTER_BYTES)
        if len(tail) < 12 or tail[-4:] != MAGIC:
            raise ValueError(f"s3://{bucket}/{each['Key']} is not Parquet")
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if length > len(tail):
            tail = self._tail(bucket, each["Key"], length)
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            file.write(MAGIC + tail[-length:])
            file.flush()
            return _ask("SELECT sum(num_rows) FROM parquet_file_metadata(?)", file.name)

    def _csv_rows(self, bucket: str, each: Mapping[str, Any]) -> int:
        if each["Size"] == 0:
            return 0
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            self._s3.download_fileobj(bucket, each["Key"], file)
            file.flush()
            return _ask("SELECT count(*) FROM read_csv(?)", file.name)

    def _tail(self, bucket: str, key: str, size: int) -> bytes:
        body: bytes = self._s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=-{size}")["Body"].read()
        return body

    # PostgreSQL

    def _table(self, database: str, schema: str, table: str) -> dict[str, float]:
        """A table of the database that the connection of the same name leads to."""
        name = sql.Identifier(schema, table)
        with closing(psycopg2.connect(**_connection(database))) as connection:
            connection.set_session(readonly=True, autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_total_relation_size(class.oid), class.reltuples, type.xmin::text"
                    " FROM pg_class class JOIN pg_namespace space ON space.oid = class.relnamespace"
                    " JOIN pg_type type ON type.typrelid = class.oid"
                    " WHERE space.nspname = %s AND class.relname = %s",
                    (schema, table),
                )
                row = cursor.fetchone()
                if row is None:
                    raise LookupError(f"no table {schema}.{table} in database {database}")
                found: dict[str, float] = {"size_bytes": float(row[0])}
                try:
                    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
                    found["rows"] = float(cursor.fetchone()[0])
                except psycopg2.errors.QueryCanceled:
                    # Too many to count in time: the planner's estimate, called what it is.
                    found["rows_estimated"] = max(0.0, float(row[1]))
                    return found
                found |= _times(cursor, name, row[2])
        return found


def _times(cursor: Any, name: sql.Composable, created_by: str) -> dict[str, float]:
    """When the table's type was made, which no later change touches, and when the newest of its rows was written.

    The server remembers the time of a transaction for a few hundred millions of them, where `track_commit_timestamp` is on.
    """
    cursor.execute("SELECT current_setting('track_commit_timestamp') = 'on'")
    if not cursor.fetchone()[0]:
        return {}
    query = sql.SQL(
        "SELECT pg_xact_commit_timestamp(%s::xid),"
        " (SELECT max(pg_xact_commit_timestamp(writer)) FROM (SELECT DISTINCT xmin AS writer FROM {}) writers)"
    ).format(name)
    try:
        cursor.execute(query, (created_by,))
    except psycopg2.errors.QueryCanceled:
        return {}
    moments: tuple[datetime | None, datetime | None] = cursor.fetchone()
    return {
        label: moment.timestamp()
        for label, moment in zip(("created_at", "modified_at"), moments, strict=True)
        if moment is not None
    }


def _connection(connection_id: str) -> dict[str, Any]:
    """What psycopg2 needs, from the connection's secret as Airflow reads it."""
    name = f"{os.environ['UPDRAFT_SSM_PREFIX'].lstrip('/')}/connections/{connection_id}"
    client = boto3.client("secretsmanager", config=S3_CONFIG)
    values = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
    extra = values.get("extra") or {}
    if isinstance(extra, str):
        extra = json.loads(extra)
    return {
        "host": values["host"],
        "port": int(values["port"]),
        "dbname": values.get("schema") or connection_id,
        "user": values["login"],
        "password": values["password"],
        "connect_timeout": CONNECT_SECONDS,
        "options": f"-c statement_timeout={STATEMENT_MILLISECONDS}",
        **{key: extra[key] for key in ("sslmode", "sslrootcert") if key in extra},
    }


def _is_within(found: str, key: str) -> bool:
    return found == key or not key or found.startswith(key.rstrip("/") + "/")


def _suffix(each: Mapping[str, Any]) -> str:
    return Path(each["Key"]).suffix.lower()


def _ask(query: str, file: str) -> int:
    with duckdb.connect(config={"threads": 1, "memory_limit": "256MB"}) as connection:
        [row] = connection.execute(query, [file]).fetchall()
    return int(row[0])

"""Tables in the warehouse, exchanged whole: readers see the old ones or the new ones, never a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

SCHEMA = "insurance"
# Whoever reads a table holds up its exchange; the load would rather fail, and be tried again, than wait for ever.
LONGEST_WAIT = "60s"
CHUNK_BYTES = 2**20
# DuckDB's names, where PostgreSQL has other ones.
TYPES = {"DOUBLE": "double precision", "FLOAT": "real", "VARCHAR": "text", "TINYINT": "smallint"}
LOADS = """
CREATE TABLE IF NOT EXISTS {schema}.loads (
    run_id text NOT NULL,
    table_name text NOT NULL,
    row_count bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, table_name)
)
"""
LOADED = """
INSERT INTO {schema}.loads (run_id, table_name, row_count) VALUES (%s, %s, %s)
ON CONFLICT (run_id, table_name) DO UPDATE SET row_count = excluded.row_count, loaded_at = excluded.loaded_at
"""


@dataclass(frozen=True)
class Source:
    """A table's rows as a CSV file with a header; `columns` maps each column to DuckDB's name of its type."""

    file: Path
    columns: Mapping[str, str]
    key: Sequence[str]


def exchange(connection: Any, sources: Mapping[str, Source], *, run_id: str) -> dict[str, int]:
    """Load every table beside the old one and exchange them all at once; returns the rows of each.

    Takes a psycopg connection. Any failure leaves the tables as they were. Repeating a run changes nothing but
    `loads.loaded_at`.
    """
    schema = sql.Identifier(SCHEMA)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LONGEST_WAIT)))
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        cursor.execute(sql.SQL(LOADS).format(schema=schema))
        rows = {name: _load(cursor, name, source) for name, source in sources.items()}
        for name, source in sources.items():
            _replace(cursor, name, source)
            cursor.execute(sql.SQL(LOADED).format(schema=schema), (run_id, name, rows[name]))
    return rows


def _load(cursor: Any, name: str, source: Source) -> int:
    """Fill a new table by COPY; returns its rows."""
    table = sql.Identifier(SCHEMA, _new(name))
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(TYPES.get(kind, kind)))
        for column, kind in source.columns.items()
    )
    cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(table, columns))
    names = sql.SQL(", ").join(map(sql.Identifier, source.columns))
    copy = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv, HEADER true)").format(table, names)
    with source.file.open("rb") as file, cursor.copy(copy) as stream:
        while data := file.read(CHUNK_BYTES):
            stream.write(data)
    return int(cursor.rowcount)


def _replace(cursor: Any, name: str, source: Source) -> None:
    table, new = sql.Identifier(SCHEMA, name), sql.Identifier(SCHEMA, _new(name))
    key = sql.SQL(", ").join(map(sql.Identifier, source.key))
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(name)))
    cursor.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})").format(
            table, sql.Identifier(f"{name}_pkey"), key
        )
    )
    cursor.execute(sql.SQL("ANALYZE {}").format(table))


def _new(name: str) -> str:
    return f"{name}_new"

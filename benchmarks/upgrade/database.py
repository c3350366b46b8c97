"""Airflow's database on a real PostgreSQL, as the migration task finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.database.standalone import Endpoint

# Columns, indexes and constraints, in words that two equal schemas have in common.
SHAPE = """
SELECT 'column', table_name, column_name, data_type || coalesce('(' || character_maximum_length || ')', '') || ' '
    || is_nullable || ' ' || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
ORDER BY 1, 2, 3, 4
"""


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    endpoint: Endpoint
    name: str

    def copy(self, name: str) -> Database:
        """The same content under another name."""
        Database(self.endpoint, "postgres").query(f"CREATE DATABASE {name} TEMPLATE {self.name}")
        return Database(self.endpoint, name)

    def connect(self) -> Any:
        """A connection that commits each statement."""
        return self.endpoint.connect(dbname=self.name)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement, none where it has none."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def revision(self) -> str:
        """Airflow's schema revision."""
        return str(self.query("SELECT version_num FROM alembic_version")[0][0])

    def shape(self) -> list[tuple[Any, ...]]:
        """Every column, index and constraint."""
        return self.query(SHAPE)

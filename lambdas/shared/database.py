"""Airflow's database as a Lambda reads it: logged in by an IAM token, over verified TLS, read-only."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.native  # type: ignore[import-untyped]

CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Database:
    """Where the database is; `ca_bundle` is a file's name inside the function's package."""

    host: str
    port: int
    name: str
    user: str
    ca_bundle: str

    @classmethod
    def read(cls) -> Database:
        """From the environment variables `UPDRAFT_DATABASE_*` that the function's stack sets."""
        value = os.environ
        return cls(
            host=value["UPDRAFT_DATABASE_HOST"],
            port=int(value["UPDRAFT_DATABASE_PORT"]),
            name=value["UPDRAFT_DATABASE_NAME"],
            user=value["UPDRAFT_DATABASE_USER"],
            ca_bundle=value["UPDRAFT_DATABASE_CA_BUNDLE"],
        )


@contextmanager
def read_only(place: Database, rds: Any) -> Iterator[Any]:
    """A pg8000 connection that can't write; raises what pg8000 raises when the database can't be reached."""
    token = rds.generate_db_auth_token(DBHostname=place.host, Port=place.port, DBUsername=place.user)
    package = Path(os.environ.get("LAMBDA_TASK_ROOT", Path(__file__).parents[2]))
    connection = pg8000.native.Connection(
        place.user,
        host=place.host,
        port=place.port,
        database=place.name,
        password=token,
        ssl_context=ssl.create_default_context(cafile=str(package / place.ca_bundle)),
        timeout=CONNECT_SECONDS,
    )
    try:
        connection.run("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        yield connection
    finally:
        connection.close()

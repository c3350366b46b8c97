"""What is asked of Airflow's database: lineage a lock between exporters and how a run's tasks ended, pruning the versions
that are still needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from local.database.server import PostgresServer
from runtime import metadata
from runtime.lineage import names, recorder
from runtime.lineage.tracking import TrackingUnavailableError
from tests.runtime.embedded_postgres import postgres


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres(tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def database(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "HOST": str(server.sockets), "PORT": server.socket.suffix[1:], "NAME": "warehouse", "USER": "owner",
        "PASSWORD": "secret", "CA_BUNDLE": "/nowhere",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"UPDRAFT_DATABASE_{name}", value)


@contextmanager
def writing(server: PostgresServer) -> Iterator[Any]:
    """A cursor of the owner, who writes what Airflow would."""
    connection = psycopg2.connect(
        host=str(server.sockets), port=server.socket.suffix[1:], user="owner", password="secret",
        dbname="warehouse",
    )  # fmt: skip
    connection.autocommit = True
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


@pytest.mark.usefixtures("database")
def test_two_exporters_take_turns_over_one_run_and_not_over_two() -> None:
    told: list[str] = []

    def hold(key: str, name: str, begun: threading.Event) -> None:
        with recorder.database_lock(key):
            told.append(f"{name} begins")
            begun.set()
            time.sleep(0.3)
            told.append(f"{name} ends")

    begun = threading.Event()
    first = threading.Thread(target=hold, args=("one", "first", begun))
    first.start()
    assert begun.wait(10)
    with recorder.database_lock("another"):
        told.append("another")
    with recorder.database_lock("one"):
        told.append("second")
    first.join()
    assert told == ["first begins", "another", "first ends", "second"]


@pytest.mark.usefixtures("database")
def test_exporter_that_waits_too_long_keeps_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LOCK_TIMEOUT", "100ms")
    with (
        recorder.database_lock("one"),
        pytest.raises(TrackingUnavailableError, match="no lock"),
        recorder.database_lock("one"),
    ):
        raise AssertionError("two have the lock")


@pytest.mark.usefixtures("database")
def test_database_that_is_away_keeps_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPDRAFT_DATABASE_PORT", "9")
    with pytest.raises(TrackingUnavailableError), recorder.database_lock("one"):
        raise AssertionError("there is no lock to have")
    with pytest.raises(TrackingUnavailableError):
        recorder.task_states("flights", "manual")


@pytest.mark.usefixtures("database")
def test_states_of_a_run_are_found_by_the_keys_of_its_tries(server: PostgresServer) -> None:
    with writing(server) as cursor:
        # The columns that Airflow has, by their types.
        cursor.execute(
            "CREATE TABLE task_instance (dag_id text, run_id text, task_id text, map_index int, try_number int,"
            " state text, end_date timestamptz)"
        )
        cursor.execute(
            "INSERT INTO task_instance VALUES"
            " ('flights', 'manual', 'load', -1, 2, 'failed', '2026-01-02 03:04:05.678+00'),"
            " ('flights', 'manual', 'each', 0, 1, NULL, NULL),"
            " ('flights', 'other', 'load', -1, 1, 'success', now())"
        )
    who = {"dag_id": "flights", "run_id": "manual"}
    assert recorder.task_states("flights", "manual") == {
        names.task_key(who | {"task_id": "load", "map_index": -1, "try_number": 2}): (
            "failed",
            1767323045678,
        ),
        names.task_key(who | {"task_id": "each", "map_index": 0, "try_number": 1}): ("none", None),
    }


@pytest.mark.usefixtures("database")
def test_versions_of_runs_that_go_on_or_may_be_cleared_are_in_use(server: PostgresServer) -> None:
    with writing(server) as cursor:
        cursor.execute("CREATE TABLE dag_run (bundle_version text, state text, end_date timestamptz)")
        cursor.execute("CREATE TABLE dag (bundle_name text, bundle_version text, is_stale boolean)")
        cursor.execute("CREATE TABLE dag_bundle (name text, version text)")
        cursor.execute(
            "INSERT INTO dag_run VALUES ('queued', 'queued', NULL), ('running', 'running', NULL),"
            " ('failed on friday', 'failed', now() - interval '3 days'),"
            " ('succeeded on friday', 'success', now() - interval '13 days 23 hours'),"
            " ('long ago', 'failed', now() - interval '14 days 1 hour'), (NULL, 'failed', now())"
        )
        cursor.execute(
            "INSERT INTO dag VALUES ('updraft', 'active', false), ('updraft', 'stale', true),"
            " ('another', 'of another bundle', false)"
        )
        cursor.execute("INSERT INTO dag_bundle VALUES ('updraft', 'live'), ('another', 'of another bundle')")
    with metadata.connect() as connection:
        found = metadata.versions_in_use(connection)
    assert found == ["active", "failed on friday", "live", "queued", "running", "succeeded on friday"]

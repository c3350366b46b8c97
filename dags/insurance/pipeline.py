"""What each task of the insurance pipeline does, between the data bucket, DuckDB and the warehouse.

All runs deliver and stage in the same place. Whoever reads there says for which run, and gets a DeliveryError where
another one has delivered since.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk.exceptions import AirflowFailException

from insurance import catalog, checks, source, transform, warehouse
from insurance.lake import Lake, database, lake

CONNECTION = "warehouse"
log = logging.getLogger(__name__)


class DeliveryError(AirflowFailException):  # type: ignore[misc]
    """What lies in the lake is another run's. No retry brings this run's back, so the task fails at once."""


def extract(
    *, bucket: str, run_id: str, policies: int, seed: int, as_of: date, defect: str | None
) -> dict[str, Any]:
    """Take the delivery into the lake as it came; returns its date and its rows by table."""
    with lake(bucket) as files:
        rows = source.deliver(files.folder, policies=policies, seed=seed, as_of=as_of, defect=defect)
        manifest = files.folder / source.MANIFEST_FILE
        stated = json.loads(manifest.read_text())
        # First: from here on no other run finds its own delivery, even where this one comes no further.
        manifest.write_text(json.dumps({"run_id": run_id}))
        files.keep(manifest, catalog.MANIFEST)
        for table in catalog.DELIVERED:
            files.keep(files.folder / f"{table}.csv", catalog.raw_key(table))
        # Last: a delivery is complete when its manifest says what it has.
        manifest.write_text(json.dumps({**stated, "run_id": run_id}))
        files.keep(manifest, catalog.MANIFEST)
    return {"as_of": as_of.isoformat(), "rows": rows}


def check_delivery(*, bucket: str, run_id: str, today: date) -> dict[str, int]:
    """Hold the delivery against the agreement; raises DataQualityError with every violation."""
    with lake(bucket) as files, database(files.folder) as connection:
        manifest = _manifest_of(files, run_id)
        tables = {table: files.fetch(catalog.raw_key(table)) for table in catalog.DELIVERED}
        return checks.check_delivery(connection, tables, manifest, today=today)


def stage(*, bucket: str, run_id: str) -> None:
    """CSV to typed Parquet."""
    with lake(bucket) as files, database(files.folder) as connection:
        _manifest_of(files, run_id)
        tables = {table: files.fetch(catalog.raw_key(table)) for table in catalog.DELIVERED}
        for table, file in transform.stage(connection, tables, files.folder).items():
            files.keep(file, catalog.staged_key(table))


def enrich(*, bucket: str, run_id: str) -> int:
    """Policies with their customer, the risk of the region, and their claims."""
    with lake(bucket) as files, database(files.folder) as connection:
        _manifest_of(files, run_id)
        _view_staged(connection, files, catalog.DELIVERED)
        made = files.folder / "enriched.parquet"
        rows = transform.enrich(connection, made)
        files.keep(made, catalog.staged_key(catalog.ENRICHED))
    return rows


def build_features(*, bucket: str, run_id: str, as_of: date) -> int:
    """The features of every policy, a year ago with what came of it, and now."""
    with lake(bucket) as files, database(files.folder) as connection:
        _manifest_of(files, run_id)
        _view_staged(connection, files, ("claims",))
        transform.view(connection, "policies", files.fetch(catalog.staged_key(catalog.ENRICHED)))
        made = files.folder / "features.parquet"
        rows = transform.build_features(connection, made, as_of=as_of)
        files.keep(made, catalog.staged_key(catalog.FEATURES))
    return rows


def check_curated(*, bucket: str, run_id: str) -> dict[str, float]:
    """Hold what is about to be published against the delivery; raises DataQualityError with every violation."""
    with lake(bucket) as files, database(files.folder) as connection:
        _manifest_of(files, run_id)
        _view_staged(connection, files, ("policies", "claims"))
        transform.view(connection, "policies", files.fetch(catalog.staged_key(catalog.ENRICHED)))
        transform.view(connection, "policy_features", files.fetch(catalog.staged_key(catalog.FEATURES)))
        return checks.check_curated(connection)


def load_warehouse(*, bucket: str, run_id: str) -> dict[str, int]:
    """Exchange the warehouse's tables for the staged ones, all in one transaction."""
    with lake(bucket) as files, database(files.folder) as connection:
        _manifest_of(files, run_id)
        sources = {
            table: _as_csv(connection, files.fetch(catalog.staged_key(staged)), files.folder, table)
            for table, staged in catalog.CURATED.items()
        }
        return _exchange(sources, run_id)


def load_lake(*, bucket: str, run_id: str) -> list[str]:
    """Publish the staged files; returns their keys."""
    with lake(bucket) as files:
        _manifest_of(files, run_id)
        for table, staged in catalog.CURATED.items():
            files.copy(catalog.staged_key(staged), catalog.curated_key(table))
    return [catalog.curated_key(table) for table in catalog.CURATED]


def write_matrices(*, bucket: str, prefix: str) -> dict[str, int]:
    """What the training, evaluation and scoring jobs read, below `{prefix}/matrices/`; returns the rows of each."""
    with lake(bucket) as files, database(files.folder) as connection:
        transform.view(connection, "policy_features", files.fetch(catalog.curated_key(catalog.FEATURES)))
        rows = transform.write_matrices(connection, files.folder)
        for name in rows:
            files.keep(files.folder / f"{name}.csv", f"{prefix}/matrices/{name}/{name}.csv")
        files.keep(files.folder / transform.KEYS_FILE, f"{prefix}/matrices/keys/{transform.KEYS_FILE}")
    return rows


def publish_scores(
    *, bucket: str, prefix: str, as_of: date, model_package_arn: str, run_id: str
) -> dict[str, int]:
    """The job's probabilities with the policies that they belong to, in the lake and in the warehouse."""
    with lake(bucket) as files, database(files.folder) as connection:
        keys = files.fetch(f"{prefix}/matrices/keys/{transform.KEYS_FILE}")
        scores = files.fetch(f"{prefix}/scores/{transform.CURRENT}.csv.out")
        made = files.folder / "scores.parquet"
        transform.join_scores(
            connection, keys, scores, made, as_of=as_of, model_package_arn=model_package_arn
        )
        exchanged = _exchange(
            {catalog.SCORES: _as_csv(connection, made, files.folder, catalog.SCORES)}, run_id
        )
        files.keep(made, catalog.curated_key(catalog.SCORES))
    return exchanged


def clean_up(*, bucket: str, prefix: str) -> int:
    """Remove what only the jobs of this run needed; the model and its evaluation stay."""
    with lake(bucket) as files:
        return sum(files.remove(f"{prefix}/{part}/") for part in ("matrices", "scores"))


def _manifest_of(files: Lake, run_id: str) -> Path:
    """The delivery's manifest; raises DeliveryError unless the delivery is this run's."""
    manifest = files.fetch(catalog.MANIFEST)
    found = json.loads(manifest.read_text()).get("run_id")
    if found != run_id:
        raise DeliveryError(
            f"the delivery in the lake is of run {found}, and this is run {run_id}: raw and staged tables are those of "
            "the run that delivered last. Clear this run from its first task, ingest.extract, to take its delivery again"
        )
    return manifest


def _view_staged(connection: Any, files: Lake, tables: Iterable[str]) -> None:
    for table in tables:
        transform.view(connection, f"staged_{table}", files.fetch(catalog.staged_key(table)))


def _as_csv(connection: Any, file: Path, folder: Path, table: str) -> warehouse.Source:
    rows = f"FROM read_parquet('{file}')"
    columns = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}
    target = folder / f"{table}.load.csv"
    connection.execute(f"COPY ({rows}) TO '{target}' (FORMAT csv, HEADER true)")
    return warehouse.Source(target, columns, catalog.KEYS[table])


def _exchange(sources: Mapping[str, warehouse.Source], run_id: str) -> dict[str, int]:
    connection = PostgresHook(CONNECTION).get_conn()
    try:
        rows = warehouse.exchange(connection, sources, run_id=run_id)
    finally:
        connection.close()
    log.info("loaded %s", ", ".join(f"{table}: {count} rows" for table, count in rows.items()))
    return rows

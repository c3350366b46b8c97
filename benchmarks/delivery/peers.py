"""Airflow's own bundles beside ours: seconds from a changed file to its DAG being stored, in the same run.

Each has a dag-processor and an SQLite database of its own, so that nothing but the bundle differs; none of them tests
what it makes live.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.delivery.platform import Platform, tell, wait_until
from benchmarks.delivery.trees import SMALL
from ops.bootstrap import environment_python
from ops.target import local_paths

DAG_ID = "peer"
STORED_SECONDS = 900
# How often a bundle is refreshed: Airflow's default, written out since the moments of the pushes are spread over it.
REFRESH_INTERVAL = "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"
DEFAULTS = {REFRESH_INTERVAL: "300"}
FASTEST = {
    REFRESH_INTERVAL: "1",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
}
Put = Callable[[str], None]


def peers_at_defaults(platform: Platform, count: int) -> dict[str, Any]:
    """Change the file `count` times with each bundle at its defaults.

    They wait for minutes and need hardly any time of the processor: they are measured side by side, and may be
    measured beside something else.
    """
    with ThreadPoolExecutor() as pool:
        found = dict(pool.map(lambda name: (name, _peer(platform, name, DEFAULTS, count)), BUNDLES))
    tell(f"at defaults: {found}")
    return {"peers_at_defaults": found}


def peers_at_fastest(platform: Platform, count: int) -> dict[str, Any]:
    """Change the file `count` times with each bundle at its fastest settings, one bundle after the other."""
    found = {name: _peer(platform, name, FASTEST, count) for name in BUNDLES}
    tell(f"at their fastest: {found}")
    return {"peers_at_fastest": found}


def _peer(platform: Platform, name: str, settings: dict[str, str], count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        bundle, put = BUNDLES[name](platform, Path(home))
        seconds = _measure(Path(home), bundle, settings, put, count)
    return {
        "pushes": count,
        "median_seconds": round(statistics.median(seconds), 2),
        "slowest_seconds": round(max(seconds), 2),
    }


def _local(_platform: Platform, home: Path) -> tuple[dict[str, Any], Put]:
    folder = home / "dags"
    folder.mkdir()

    def put(text: str) -> None:
        (folder / "new").write_text(text)
        (folder / "new").replace(folder / "peer.py")

    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": "peer", "classpath": classpath, "kwargs": {"path": str(folder)}}, put


def _s3(platform: Platform, _home: Path) -> tuple[dict[str, Any], Put]:
    bucket = platform.target.output("storage", "DataBucket")
    prefix = f"peer-{time.time():.0f}"
    client = platform.target.client("s3")

    def put(text: str) -> None:
        client.put_object(Bucket=bucket, Key=f"{prefix}/peer.py", Body=text.encode())

    classpath = "airflow.providers.amazon.aws.bundles.s3.S3DagBundle"
    kwargs = {"bucket_name": bucket, "prefix": prefix, "aws_conn_id": "aws_default"}
    return {"name": "peer", "classpath": classpath, "kwargs": kwargs}, put


BUNDLES = {"LocalDagBundle": _local, "S3DagBundle": _s3}


def _measure(
    home: Path, bundle: dict[str, Any], settings: dict[str, str], put: Put, count: int
) -> list[float]:
    chance = random.Random(1)
    database = home / "airflow.db"
    environment = _environment(home, bundle, database) | settings
    put(SMALL.format(dag_id=DAG_ID, mark="0"))
    python = str(environment_python("airflow"))
    subprocess.run(
        [python, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True
    )
    seconds = []
    with _dag_processor(python, environment):
        _wait_for(database, "0")
        for number in range(1, count + 1):
            # A push comes at any moment between two refreshes.
            time.sleep(chance.uniform(0, float(settings[REFRESH_INTERVAL])))
            started = time.monotonic()
            put(SMALL.format(dag_id=DAG_ID, mark=number))
            _wait_for(database, str(number))
            seconds.append(time.monotonic() - started)
    return seconds


def _environment(home: Path, bundle: dict[str, Any], database: Path) -> dict[str, str]:
    paths = local_paths()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        # Two changes within a second and of one size look the same to Python's cached bytecode.
        "PYTHONDONTWRITEBYTECODE": "1",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "AWS_ENDPOINT_URL": paths.endpoint_url,
        "AWS_ACCESS_KEY_ID": paths.access_key_id,
        "AWS_SECRET_ACCESS_KEY": paths.secret_access_key,
        "AWS_DEFAULT_REGION": paths.region,
    }


@contextmanager
def _dag_processor(python: str, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [python, "-m", "airflow", "dag-processor"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(database: Path, mark: str) -> None:
    def is_stored() -> bool:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            row = connection.execute(
                "SELECT data FROM serialized_dag WHERE dag_id = ? ORDER BY created_at DESC, last_updated DESC LIMIT 1",
                (DAG_ID,),
            ).fetchone()
        return row is not None and json.loads(row[0])["dag"].get("description") == mark

    wait_until(is_stored, seconds=STORED_SECONDS, what=f"change {mark}")

"""Switches while runs of three-file DAGs are in flight: no run may see two versions, no parse bear a wrong one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from benchmarks.account_faults import faults
from benchmarks.delivery.platform import Platform, tell, wait_until
from benchmarks.delivery.trees import three_file_dags
from ops.bootstrap import environment_python
from runtime.release import build_release
from runtime.release_check import MANIFEST

DAGS = 3
VERSIONS = 6
# Of a task, twice: a run lasts over a minute and many switches, and the machine has time for more than starting tasks.
PAUSE_SECONDS = 10.0
SETTLED_SECONDS = 300
ACCEPTED_SECONDS = 120
# NFS shows what is new late, Parameter Store refuses half of the calls.
CONDITIONS: dict[str, dict[str, float]] = {
    "normal": {},
    "efs_delayed": {"efs_delay_seconds": 60},
    "ssm_throttled": {"ssm_throttled_share": 0.5},
}
# Every stored parse: the mark that the DAG's stored source shows, and the version that it was stored under.
STORED = """
import json, os, re, sys, psycopg2
from runtime import metadata
with metadata.connect() as connection, connection.cursor() as cursor:
    cursor.execute("SELECT v.bundle_version, c.source_code FROM dag_version v JOIN dag_code c ON c.dag_version_id = v.id"
                   " WHERE v.dag_id LIKE 'three_files_%'")
    print(json.dumps([[v, re.search('DAG_MARK = "([^"]*)"', code)[1]] for v, code in cursor.fetchall()]))
"""


def switches(platform: Platform, count: int, runs: int) -> dict[str, Any]:
    """Switch `count` times in each condition, with `runs` runs in flight; figures for each condition."""
    return {"conditions": {name: _in_condition(platform, name, count, runs) for name in CONDITIONS}}


def _in_condition(platform: Platform, condition: str, count: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "dags"
        mark = f"{condition}-{time.time():.0f}"
        ids = three_file_dags(first, f"{mark}-first", dags=DAGS, pause_seconds=PAUSE_SECONDS)
        marks = {platform.updraft("push", "--dags", str(first))["version"]: f"{mark}-first"}
        with faults(**CONDITIONS[condition]):
            marks |= _stage(platform, Path(scratch), mark)
            started = _switch_with_runs(platform, ids, list(marks), count, runs)
        wait_until(
            lambda: platform.served_versions() == {platform.live},
            seconds=SETTLED_SECONDS,
            what="the last switch",
        )
    figures = _judge(platform, started, marks)
    figures["wrongly_stamped_parses"] = sum(
        marks.get(v) != seen for v, seen in _stored(platform) if v in marks
    )
    tell(f"{condition}: {figures}")
    return {"switches": count, "runs": len(started), **figures}


def _stage(platform: Platform, scratch: Path, mark: str) -> dict[str, str]:
    """Put releases straight on the shared file system, as the stage hook does; marks by version."""
    marks = {}
    for number in range(VERSIONS):
        folder = scratch / f"dags-{number}"
        three_file_dags(folder, f"{mark}-{number}", dags=DAGS, pause_seconds=PAUSE_SECONDS)
        release = build_release(folder, [], scratch / "built")
        partial = platform.releases_folder / f".partial-{release.version}"
        shutil.copytree(folder, partial)
        content = {"version": release.version, "files": dict(release.files)}
        (partial / MANIFEST).write_text(json.dumps(content))
        partial.rename(platform.releases_folder / release.version)
        marks[release.version] = f"{mark}-{number}"
    return marks


def _switch_with_runs(
    platform: Platform, ids: list[str], versions: list[str], count: int, runs: int
) -> list[tuple[str, str]]:
    """Move the pointer `count` times at uneven moments, keeping `runs` runs in flight; returns the runs."""
    chance = random.Random(1)
    ssm, name = platform.target.client("ssm"), platform.target.output("delivery", "PointerParameter")
    started: list[tuple[str, str]] = []
    for number in range(count):
        _point(ssm, name, chance.choice(versions))
        missing = runs - (_unfinished(platform, ids) if number % 5 == 0 else runs)
        for _ in range(missing):
            dag_id = chance.choice(ids)
            started.append((dag_id, platform.start_run(dag_id)["dag_run_id"]))
        time.sleep(chance.uniform(0.1, 3.0))
        if number % 20 == 0:
            tell(f"switch {number}/{count}, {len(started)} runs")
    return started


def _point(ssm: Any, name: str, version: str) -> None:
    """Move the pointer; where Parameter Store refuses half of the calls, as often as it takes."""
    deadline = time.monotonic() + ACCEPTED_SECONDS
    while True:
        try:
            ssm.put_parameter(Name=name, Value=version, Type="String", Overwrite=True)
            return
        except ClientError as error:
            if error.response["Error"]["Code"] != "ThrottlingException" or time.monotonic() > deadline:
                raise


def _unfinished(platform: Platform, ids: list[str]) -> int:
    return sum(platform.airflow.unfinished_runs(dag_id=dag_id) for dag_id in ids)


def _judge(platform: Platform, started: list[tuple[str, str]], marks: dict[str, str]) -> dict[str, int]:
    mixed = failed = 0
    for dag_id, run_id in started:
        wait_until(
            lambda dag_id=dag_id, run_id=run_id: (
                platform.airflow.run(dag_id, run_id)["state"]  # type: ignore[misc]
                in ("success", "failed")
            ),
            seconds=SETTLED_SECONDS + 30 * len(started),
            what=f"the end of {run_id}",
        )
        tasks = platform.airflow.task_instances(dag_id, run_id)
        failed += sum(task["state"] != "success" for task in tasks)
        last = max(tasks, key=lambda task: task["task_id"])
        if last["state"] == "success":
            seen = set(platform.airflow.xcom(dag_id, run_id, last["task_id"]))
            version = platform.airflow.run(dag_id, run_id)["bundle_version"]
            mixed += seen != {marks.get(version)}
    return {"mixed_version_runs": mixed, "failed_tasks": failed}


def _stored(platform: Platform) -> list[tuple[str, str]]:
    """Version and mark of every stored parse, read in Airflow's environment with the database's own log-in."""
    secret = json.loads(platform.target.secret(platform.target.output("storage", "DatabaseSecretArn")))
    ran = subprocess.run(
        [environment_python("airflow"), "-c", STORED],
        env={
            "PYTHONPATH": ".",
            "UPDRAFT_DATABASE_HOST": platform.target.output("storage", "DatabaseEndpoint"),
            "UPDRAFT_DATABASE_PORT": platform.target.output("storage", "DatabasePort"),
            "UPDRAFT_DATABASE_NAME": "airflow",
            "UPDRAFT_DATABASE_USER": secret["username"],
            "UPDRAFT_DATABASE_PASSWORD": secret["password"],
            "UPDRAFT_DATABASE_CA_BUNDLE": platform.target.config.database.ca_bundle,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [(version, mark) for version, mark in json.loads(ran.stdout)]

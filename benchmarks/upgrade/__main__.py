"""`python -m benchmarks.upgrade [--json]`: from Airflow 3.2 to 3.3 and back, on a real PostgreSQL with history.

Both versions are real, each in an environment of its own: the older one writes the history, `runtime.migrate` takes
the schema forth and back under the newer one, and both read the history. Migrations that fail and that are killed are
among it. Prints what was checked and how long each step took; exits 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.upgrade.database import Database
from benchmarks.upgrade.installation import LONGEST_STEP_SECONDS, Airflow, History, version_of
from local.database.server import Master
from local.database.standalone import serving
from ops.bootstrap import PREVIOUS_AIRFLOW, ensure_environment
from ops.console import say
from runtime.migrate import EXIT_SCHEMA_IS_NEWER, EXIT_SERVICES_MUST_STOP

# Made by a revision of 3.3 after two others: a table that is there already fails the migration in its middle.
IN_THE_WAY = "task_state_store"
# Changed by a later revision: whoever reads it holds the migration up, and it can be killed there.
HELD = "trigger"
MASTER = Master(user="updraft", password="secret", database="airflow")


class Record:
    """Named checks and the seconds of each step."""

    def __init__(self) -> None:
        self.checks: dict[str, bool] = {}
        self.seconds: dict[str, float] = {}

    def check(self, name: str, holds: bool, output: str = "") -> None:
        """Note whether something holds; what a command said is shown when it doesn't."""
        self.checks[name] = holds
        say(f"{'ok' if holds else 'FAILED'}: {name}")
        if not holds and output:
            say(output[-4000:])

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure a step."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


Scenario = Callable[[Database, Airflow, Airflow, Record, History], History]


def main() -> int:
    """Run every step on a database of its own, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="accepted for symmetry: the output is always JSON"
    )
    parser.add_argument("--older", type=Path, help="a Python with the older Airflow, instead of making one")
    parser.add_argument("--runs", type=int, default=3, help="runs of history before the upgrade")
    arguments = parser.parse_args()
    older, newer = arguments.older or ensure_environment(PREVIOUS_AIRFLOW), ensure_environment("airflow")
    folder = Path(tempfile.mkdtemp(prefix="updraft-upgrade-"))
    folder.chmod(0o755)
    record = Record()
    try:
        with serving(folder, MASTER) as endpoint:
            database = Database(endpoint, MASTER.database)
            history = prove(database, (older, newer), folder, record, runs=arguments.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "from": version_of(older),
        "to": version_of(newer),
        "history": {name: len(history[name]) for name in ("runs", "tasks", "xcoms", "users")},
        "checks": record.checks,
        "seconds": record.seconds,
        "failed": [name for name, holds in record.checks.items() if not holds],
    }
    print(json.dumps(result, indent=2))
    return 1 if result["failed"] else 0


def prove(
    database: Database, pythons: tuple[Path, Path], folder: Path, record: Record, *, runs: int
) -> History:
    """The older version's history, and on a copy of it for each, side by side, what can happen to an upgrade."""
    older, newer = pythons
    old = Airflow(older, database, folder / "first")
    with record.timed(f"{old.version} makes its schema"):
        code, output = old.migrate()
    record.check(f"an empty database is migrated at once by {old.version}", code == 0, output)
    old.do("fill")
    old.run_dag(*[{"fail": False}] * (runs - 1), {"fail": True})
    [before] = old.do("read")

    def on_a_copy(happens: Scenario) -> History:
        copy = database.copy(happens.__name__)
        home = folder / happens.__name__
        return happens(
            copy, Airflow(older, copy, home / "old"), Airflow(newer, copy, home / "new"), record, before
        )

    with ThreadPoolExecutor() as pool:
        last, *_ = pool.map(on_a_copy, (forth_and_back, failing, killed))
    return last


def forth_and_back(
    database: Database, old: Airflow, new: Airflow, record: Record, before: History
) -> History:
    """An upgrade that succeeds, what the older version makes of it, and the way back."""
    revision, shape = database.revision(), database.shape()
    code, output = new.migrate()
    record.check(
        f"{new.version} asks for stopped services before it touches the older schema",
        code == EXIT_SERVICES_MUST_STOP and (database.revision(), database.shape()) == (revision, shape),
        output,
    )
    with record.timed(f"{new.version} migrates"):
        code, output = new.migrate("--services-stopped")
    record.check(f"{new.version} migrates once they are stopped", code == 0, output)
    newest, migrated = database.revision(), database.shape()
    [after] = new.do("read")
    new.run_dag({"fail": False})
    [later] = new.do("read")
    record.check(
        f"{new.version} reads all of {old.version}'s history", after == before, _difference(before, after)
    )
    record.check(f"{new.version} adds a run to it", len(later["runs"]) == len(before["runs"]) + 1)

    code, output = old.migrate("--services-stopped")
    record.check(
        f"{old.version} refuses the newer schema, says so, and changes nothing",
        code == EXIT_SCHEMA_IS_NEWER
        and newest in output
        and old.version in output
        and (database.revision(), database.shape()) == (newest, migrated),
        output,
    )
    code, output = old.call("-m", "airflow", "scheduler")
    record.check(
        f"a scheduler of {old.version} ends at its start on the newer schema",
        code == 1 and "Database migration required" in output,
        output,
    )
    with record.timed(f"{new.version} takes the schema back"):
        code, output = new.migrate("--back-to", *packages(old))
    record.check(
        f"the schema is again exactly that of {old.version}",
        code == 0 and (database.revision(), database.shape()) == (revision, shape),
        output + _difference_of(shape, database.shape()),
    )
    code, output = old.migrate("--services-stopped")
    record.check(f"{old.version} is content with it", code == 0, output)
    [back] = old.do("read")
    old.run_dag({"fail": False})
    [final] = old.do("read")
    record.check(
        f"{old.version} reads its history and the run of {new.version}",
        back == later,
        _difference(later, back),
    )
    record.check(f"{old.version} goes on with it", len(final["runs"]) == len(later["runs"]) + 1)
    return final


def failing(database: Database, _old: Airflow, new: Airflow, record: Record, before: History) -> History:
    """A revision in the middle of the migration raises."""
    revision, shape = database.revision(), database.shape()
    database.query(f"CREATE TABLE {IN_THE_WAY} (id integer)")
    with record.timed(f"{new.version} fails and goes back"):
        code, output = new.migrate("--services-stopped")
    database.query(f"DROP TABLE {IN_THE_WAY}")
    record.check(
        "a migration that fails in its middle leaves exactly the schema that it found",
        code == 1
        and "already exists" in output
        and "going back to revision" in output
        and (database.revision(), database.shape()) == (revision, shape),
        output + _difference_of(shape, database.shape()),
    )
    return before


def killed(database: Database, old: Airflow, new: Airflow, record: Record, before: History) -> History:
    """SIGKILL to the migration between two of its revisions."""
    first = database.revision()
    holder = database.connect()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {HELD} IN ACCESS SHARE MODE")
    process = new.start("-m", "runtime.migrate", "--services-stopped")
    blocked = (
        "SELECT 1 FROM pg_locks JOIN pg_class ON relation = pg_class.oid "
        f"WHERE NOT granted AND relname = '{HELD}'"
    )
    deadline = time.monotonic() + LONGEST_STEP_SECONDS
    while not database.query(blocked) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    holder.rollback()
    holder.close()
    while database.query(blocked):
        time.sleep(0.5)
    middle = database.revision()
    code, output = old.migrate("--services-stopped")
    record.check(
        f"after a SIGKILL in the middle {old.version} sees a schema that isn't its own, and leaves it",
        alive
        and middle != first
        and code == EXIT_SCHEMA_IS_NEWER
        and middle in output
        and database.revision() == middle,
        output,
    )
    with record.timed(f"{new.version} finishes the killed migration"):
        code, output = new.migrate("--services-stopped")
    record.check("a killed migration is finished by the next one", code == 0, output)
    [after] = new.do("read")
    record.check("history outlasts the kill", after == before, _difference(before, after))
    return after


def packages(airflow: Airflow) -> list[str]:
    """What has a schema, in the versions that an environment has."""
    names = ("apache-airflow", "apache-airflow-providers-fab")
    ask = f"from importlib.metadata import version; print(*(n + '==' + version(n) for n in {names!r}))"
    return airflow.call("-c", ask)[1].split()


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "\n".join(
        f"{name}: {before.get(name)} became {after.get(name)}"
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    )


def _difference_of(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> str:
    return "\n".join(map(str, sorted(set(map(str, before)) ^ set(map(str, after)))))


if __name__ == "__main__":
    sys.exit(main())

"""Health checks of the containers: `python -m runtime.health http URL | heartbeat JOB_TYPE | worker`.

Each answers in well under a second with few imports: they run every few seconds on small tasks.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HEARTBEAT_SECONDS = 90
WORKER_SECONDS = 60
TIMEOUT_SECONDS = 5
WORKER_FILE = Path(tempfile.gettempdir()) / "updraft-worker-alive"


class UnhealthyError(Exception):
    """Why a container is not healthy."""


def check_http(url: str) -> None:
    """Healthy when the URL answers 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status != 200:
                raise UnhealthyError(f"{url} answered {answer.status}")
    except (OSError, urllib.error.URLError) as error:
        raise UnhealthyError(f"{url}: {error}") from error


def check_heartbeat(job_type: str) -> None:
    """Healthy when this host's job of that type has written a heartbeat lately."""
    # The other checks do without the database's driver.
    from runtime import metadata

    host = socket.gethostbyname(socket.getfqdn())
    with metadata.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM job WHERE job_type = %s AND hostname = %s AND state = 'running'"
            " AND latest_heartbeat > now() - make_interval(secs => %s)",
            (job_type, host, HEARTBEAT_SECONDS),
        )
        alive = cursor.fetchone()[0]
    if not alive:
        raise UnhealthyError(f"no heartbeat of {job_type} on {host} in {HEARTBEAT_SECONDS} s")


def check_worker() -> None:
    """Healthy while the worker's event loop touches its file."""
    try:
        age_seconds = time.time() - WORKER_FILE.stat().st_mtime
    except FileNotFoundError as error:
        raise UnhealthyError("the worker has not started to consume") from error
    if age_seconds > WORKER_SECONDS:
        raise UnhealthyError(f"the worker's event loop has not turned for {age_seconds:.0f} s")


def main(arguments: list[str]) -> int:
    """Run one check; 0 when healthy, 1 with the reason when not, 2 for a wrong call."""
    checks = {"http": check_http, "heartbeat": check_heartbeat, "worker": check_worker}
    if (
        not arguments
        or arguments[0] not in checks
        or len(arguments) != (1 if arguments[0] == "worker" else 2)
    ):
        print("usage: python -m runtime.health http URL | heartbeat JOB_TYPE | worker", file=sys.stderr)
        return 2
    try:
        checks[arguments[0]](*arguments[1:])  # type: ignore[operator]
    except Exception as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The process that hands the spool's events to MLflow, beside the scheduler and each worker: one for a container.

What the server doesn't take stays, and is tried again, ever more seldom; what is older than a quarter of an hour is
dropped and counted. So nothing is lost while the server is deployed anew, and nothing piles up while it is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.lineage.spool import Spool

log = logging.getLogger("runtime.lineage")

POLL_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
OLDEST_SECONDS = 900.0
# How long a container that stops waits for its last events.
STOP_SECONDS = 5.0
RESTART_SECONDS = 30.0
NICENESS = 10


class Exporter:
    """Takes events off the spool, oldest first; `record` raises TrackingUnavailableError or TrackingRefusedError."""

    def __init__(
        self,
        spool: Spool,
        record: Callable[[dict[str, Any]], None],
        *,
        oldest_seconds: float = OLDEST_SECONDS,
    ) -> None:
        self._spool = spool
        self._record = record
        self._oldest_seconds = oldest_seconds
        self.exported = self.dropped = 0

    def export(self) -> bool:
        """Hand over all that waits; False when the server did not take an event, which stays."""
        from runtime.lineage.tracking import TrackingUnavailableError

        self._drop_old()
        for file in self._spool.waiting():
            try:
                self._record(self._spool.read(file))
                self.exported += 1
            except TrackingUnavailableError as error:
                log.warning("lineage: kept for later: %s", error)
                return False
            except Exception as error:
                # It would be refused again, and those behind it would wait.
                self._dropped(1, f"{type(error).__name__}: {error}")
            file.unlink(missing_ok=True)
        return True

    def run(self, stopping: threading.Event, is_orphan: Callable[[], bool]) -> None:
        """Export until told to stop, then for a few seconds more while something waits."""
        delay, wait_until = POLL_SECONDS, 0.0
        while not stopping.wait(POLL_SECONDS) and not is_orphan():
            if time.monotonic() < wait_until:
                continue
            delay = POLL_SECONDS if self.export() else min(delay * 2, LONGEST_DELAY_SECONDS)
            wait_until = time.monotonic() + delay
        self.export()
        if left := len(self._spool.waiting()):
            self._dropped(left, "the container stops")

    def _drop_old(self) -> None:
        old = [file for file in self._spool.waiting() if self._spool.age_seconds(file) > self._oldest_seconds]
        for file in old:
            file.unlink(missing_ok=True)
        if old:
            self._dropped(len(old), f"older than {self._oldest_seconds:.0f} s")

    def _dropped(self, count: int, reason: str) -> None:
        self.dropped += count
        log.warning("lineage: dropped %s events, %s so far: %s", count, self.dropped, reason)


def main() -> None:
    """Export until the parent ends or sends SIGTERM; end at once when this container has an exporter."""
    from runtime.lineage.probes import Probes
    from runtime.lineage.recorder import Recorder
    from runtime.lineage.tracking import Tracking

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    spool = Spool()
    spool.folder.mkdir(parents=True, exist_ok=True)
    with (spool.folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        os.nice(NICENESS)
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        parent = os.getppid()
        exporter = Exporter(spool, Recorder(Tracking.from_environment(), measure=Probes().measure).record)
        exporter.run(stopping, is_orphan=lambda: os.getppid() != parent)


class _Child:
    """The exporter that a process has started; a task that was forked from it has none."""

    process: subprocess.Popen[bytes] | None = None
    started_by = 0
    started_at = 0.0


def ensure_running(**_: Any) -> None:
    """Start this process's exporter unless it runs; a signal handler of Celery, too."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    mine = _Child.process if _Child.started_by == os.getpid() else None
    # One that ended at once is not started at every event: another process of the container may have the spool.
    if mine is not None and (mine.poll() is None or time.monotonic() - _Child.started_at < RESTART_SECONDS):
        return
    _Child.process = subprocess.Popen(
        [sys.executable, "-m", "runtime.lineage.exporter"],
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
    )
    _Child.started_by, _Child.started_at = os.getpid(), time.monotonic()


def stop(**_: Any) -> None:
    """Let this process's exporter hand over what waits, for a few seconds at most, and end."""
    process = _Child.process
    if process is None or _Child.started_by != os.getpid() or process.poll() is not None:
        return
    _Child.process = None
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    main()

"""Two DAGs for `python -m benchmarks.burst`: many short tasks at once, and a few long ones.

Each task writes when it began and when it ended to the file that the run names, so that nothing of Airflow's own
has to be believed.
"""

from __future__ import annotations

import os
import time

from airflow.sdk import DAG, get_current_context, task

SHORT, LONG = 200, 20


def _record(ledger: str, what: str, key: str) -> None:
    """Append one line in one write, which other processes' lines can't break."""
    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, f"{what} {key}\n".encode())
    finally:
        os.close(handle)


@task(queue="burst")
def work(number: int) -> None:
    """Sleep, between two lines in the ledger."""
    context = get_current_context()
    params = context["params"]
    key = f"{context['run_id']}/{number}"
    _record(params["ledger"], "began", key)
    time.sleep(params["seconds"])
    _record(params["ledger"], "ended", key)


for name, tasks, seconds in (("burst_short", SHORT, 5), ("burst_long", LONG, 90)):
    with DAG(
        name,
        schedule=None,
        max_active_tasks=SHORT,
        params={"ledger": "", "seconds": seconds},
        tags=["benchmark"],
        doc_md=__doc__,
    ):
        work.expand(number=list(range(tasks)))

"""Invoked every minute and by `sleep` and `wake`: looks, takes the next step, and looks again, until it has to wait.

`observe` runs inside the VPC and reads the metadata database; `handler` runs outside of it and calls AWS.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from typing import Any

import boto3

from lambdas.shared.database import Database, read_only
from lambdas.sleep import logic
from lambdas.sleep.account import SERVICES, Account, Settings

COMMANDS = {"sleep": True, "wake": False}
# More steps than the longest way has: what needs more goes round in circles.
MOST_STEPS = 40
LEAST_MILLISECONDS_FOR_A_STEP = 20_000
WORK_SQL = """
SELECT
  (SELECT count(*) FROM task_instance WHERE state = 'queued'),
  (SELECT count(*) FROM task_instance WHERE state IN ('running', 'restarting')),
  (SELECT count(DISTINCT dag_run.id) FROM dag_run JOIN dag_tag ON dag_tag.dag_id = dag_run.dag_id
    WHERE dag_tag.name = :tag AND dag_run.state IN ('queued', 'running')),
  (SELECT CAST(extract(epoch FROM min(dag.next_dagrun_create_after)) AS float8) FROM dag
    JOIN dag_tag ON dag_tag.dag_id = dag.dag_id
    WHERE dag_tag.name = :tag AND NOT dag.is_paused AND NOT dag.is_stale)
"""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take steps; returns `wants`, `state`, `done` and `waits_for`. `event["command"]`: `sleep`, `wake` or nothing.

    Raises ValueError for another command, and what AWS answers when a call fails: the next invocation goes on.
    """
    account = Account(read_settings(), _clients())
    command = event.get("command")
    if command is not None:
        if command not in COMMANDS:
            raise ValueError(f"command: {command!r} is neither sleep nor wake")
        account.ask(sleep=COMMANDS[command])
    return advance(account, context)


@cache
def _clients() -> dict[str, Any]:
    """Made once in a container's life, for that takes half a second of a whole CPU."""
    return {name: boto3.client(name) for name in SERVICES}


def read_settings() -> Settings:
    """From the environment variables that the sleep construct sets."""
    value = os.environ
    return Settings(
        prefix=value["UPDRAFT_PREFIX"],
        ssm_prefix=value["UPDRAFT_SSM_PREFIX"],
        cluster=value["UPDRAFT_CLUSTER"],
        database=value["UPDRAFT_DATABASE_IDENTIFIER"],
        bastion_tag=value["UPDRAFT_BASTION_TAG"],
        application=value["UPDRAFT_APPLICATION"],
        deployment_group=value["UPDRAFT_DEPLOYMENT_GROUP"],
        observer=value["UPDRAFT_OBSERVER"],
        stacks=tuple(value["UPDRAFT_STACKS"].split(",")),
    )


def advance(account: Account, context: Any) -> dict[str, Any]:
    """Look and step until nothing is left to do, something must be waited for, or the time is nearly up."""
    for _ in range(MOST_STEPS):
        seen = account.observe(time.time())
        decision = logic.decide(seen)
        told = {
            "wants": logic.ASLEEP if seen.wants_sleep else logic.AWAKE,
            "state": seen.state,
            "done": decision.done,
            "waits_for": decision.reason,
        }
        if decision.step is None:
            return told
        print(json.dumps({"step": repr(decision.step)}))
        account.do(decision.step)
        if context.get_remaining_time_in_millis() < LEAST_MILLISECONDS_FOR_A_STEP:
            return told | {"waits_for": "the next minute"}
    raise RuntimeError(f"still not there after {MOST_STEPS} steps, the last one {decision.step!r}")


def observe(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """What goes on in the metadata database, as the fields of `logic.Work`."""
    with read_only(Database.read(), boto3.client("rds")) as connection:
        [[queued, running, tagged_runs, next_tagged_run]] = connection.run(WORK_SQL, tag=logic.WAKE_TAG)
    return {
        "queued": queued,
        "running": running,
        "tagged_runs": tagged_runs,
        "next_tagged_run": next_tagged_run,
    }

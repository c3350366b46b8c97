"""What every task has in common that owns something on SageMaker, in a worker."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from runtime.sagemaker.jobs import RETRIES
from runtime.sagemaker.spend import spent_this_month
from runtime.sagemaker.spend_memory import SpendMemory
from runtime.sagemaker.trigger import task_state
from runtime.settings import WorkflowSettings

# SIGKILL follows a task's SIGTERM after five seconds.
STATE_SECONDS = 2
# States in which a SIGTERM came from a worker that leaves, or that the scheduler has given up because its heartbeats
# did not arrive, and not from a user.
STILL_RUNNING = frozenset({"running", "queued", "scheduled", "deferred", "up_for_retry"})


class SageMakerOwner(BaseOperator):  # type: ignore[misc]
    """Gives up what it owns when its task was ended, and leaves it alone when only the worker leaves."""

    def __init__(
        self, *, deferrable: bool = True, aws_conn_id: str | None = "aws_default", **kwargs: Any
    ) -> None:
        # Each key of the result is an XCom of its own: `operator.output["model_uri"]`.
        super().__init__(multiple_outputs=True, **kwargs)
        self.deferrable = deferrable
        self.aws_conn_id = aws_conn_id
        self._instance: Any = None

    @cached_property
    def client(self) -> Any:
        """boto3's client, which retries with jitter."""
        return SageMakerHook(aws_conn_id=self.aws_conn_id, config=RETRIES).get_conn()

    def on_kill(self) -> None:
        """Give up what this task owns when a user or a time-out has ended it; a retry takes it over otherwise."""
        owned = self.owned_name
        if owned is None:
            return
        state = self._state_now()
        if state is None or state in STILL_RUNNING:
            self.log.info("%s goes on: the task is %s, so a retry takes it over", owned, state or "unknown")
            return
        self._give_up(f"the task was ended while it ran: it is now {state}")

    @property
    def owned_name(self) -> str | None:
        """What this task owns now; None when there is nothing."""
        raise NotImplementedError

    def _give_up(self, reason: str) -> None:
        raise NotImplementedError

    def _state_now(self) -> str | None:
        """This task's state in Airflow's database; `removed` when it was deleted, None when it can't be read in time.

        Read in a thread of its own: the signal may have come while this one holds the line to the supervisor.
        """
        instance, found = self._instance, []

        def read() -> None:
            state = task_state(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
            found.append(state or "removed")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(STATE_SECONDS)
        return found[0] if found else None

    def _refuse_over_budget(self, settings: WorkflowSettings) -> None:
        prefix = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}"
        now = datetime.now(UTC)
        memory = SpendMemory(S3Hook(aws_conn_id=self.aws_conn_id).get_conn(), settings.data_bucket, now)
        known = memory.read()
        remembered = len(known)
        spent, unpriced = spent_this_month(
            self.client, prefix=prefix, prices=settings.usd_per_hour, now=now, known=known
        )
        if len(known) > remembered:
            memory.write(known)
        if unpriced:
            self.log.warning("not in the budget, since they have no price: %s", ", ".join(unpriced))
        if spent >= settings.monthly_budget_usd:
            raise AirflowFailException(
                f"nothing is started: SageMaker jobs and endpoints of {prefix} have cost ${spent:.2f} this month, and "
                f"workflows.monthly_budget_usd is {settings.monthly_budget_usd}; raise it and deploy, "
                "delete an endpoint, or wait for the next month. ./updraft jobs lists what was paid for"
            )

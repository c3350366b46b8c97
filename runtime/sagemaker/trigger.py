"""Starts and follows a deferred task's job, and stops it when a user or a time-out has ended the task.

`SageMakerTrigger` is what every trigger here has in common: it tells a task that was ended from one that still waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from airflow.providers.amazon.aws.hooks.logs import AwsLogsHook
from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from runtime.sagemaker.jobs import RETRIES, Job
from runtime.sagemaker.progress import DeadlineError, Watched, follow

TIMED_OUT = "TimedOut"
# Airflow gives a trigger 30 s for both; a state that can't be read in this time is left to the reaper.
STATE_SECONDS = 22

_is_warm = False
# The loop itself keeps no task alive.
_leaving: set[asyncio.Task[None]] = set()


class SageMakerTrigger(BaseTrigger):  # type: ignore[misc]
    """Gives up what its task owns, by `name`, when the task was ended while it was deferred."""

    name: str
    _leaving: asyncio.Task[None] | None = None

    async def on_kill(self) -> None:
        """Give up what the task owns unless it still waits for it.

        Airflow calls this for every trigger that has left this triggerer, also when another one has taken it over.
        """
        leaving = self._start_leaving()
        while not leaving.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([leaving])
        await leaving

    @contextlib.contextmanager
    def _leaving_when_cancelled(self) -> Iterator[None]:
        """Give up what the task owns when its trigger is cancelled, whatever becomes of the call of `on_kill`.

        Airflow's triggerer cancels a trigger about once a second until it has ended: when that takes longer, as when
        twenty tasks are ended at once, `on_kill` is cancelled too, or not even called.
        """
        try:
            yield
        except asyncio.CancelledError:
            self._start_leaving()
            raise

    def _start_leaving(self) -> asyncio.Task[None]:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
            _leaving.add(self._leaving)
            self._leaving.add_done_callback(_leaving.discard)
        return self._leaving

    async def _leave(self) -> None:
        try:
            state = await asyncio.wait_for(self._task_state(), STATE_SECONDS)
        except Exception as error:
            self.log.warning("%s goes on: the task's state is unknown: %r", self.name, error)
            return
        if state == "deferred":
            self.log.info("%s goes on: another triggerer follows it", self.name)
            return
        await self._give_up(f"the task was ended while it was deferred: it is now {state or 'cleared'}")

    async def _give_up(self, reason: str) -> None:
        raise NotImplementedError

    async def _warm_up(self) -> None:
        """The triggerer's first question for a state takes it many seconds; a kill must not be the one to wait."""
        global _is_warm
        if not _is_warm:
            _is_warm = True
            with contextlib.suppress(Exception):
                await self._task_state()

    async def _task_state(self) -> str | None:
        instance = self.task_instance
        return await asyncio.to_thread(
            task_state, instance.dag_id, instance.run_id, instance.task_id, instance.map_index
        )


class SageMakerJobTrigger(SageMakerTrigger):
    """Streams a job's progress into the task's log and fires once, with `name`, `status` and `deadline`.

    `status` is SageMaker's, or `TimedOut` when `deadline` came first; the job has been asked to stop then. With a
    `request` it submits the job first, unless it is there: a task that is ended in the moment of its deferral has
    no trigger, and so no job that nobody would stop.
    """

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        poll_seconds: float,
        aws_conn_id: str | None = "aws_default",
        deadline: float | None = None,
        usd_per_hour: float | None = None,
        request: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.request = request
        self._submission: asyncio.Task[None] | None = None
        self.name = name
        self.watched = Watched(kind, name, poll_seconds, deadline, usd_per_hour)
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The arguments that make this trigger again."""
        return (
            "runtime.sagemaker.trigger.SageMakerJobTrigger",
            {**self.watched.serialize(), "aws_conn_id": self.aws_conn_id, "request": self.request},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when the job has ended or the task's time is up."""
        warm_up = asyncio.create_task(self._warm_up())
        try:
            with self._leaving_when_cancelled():
                await self.submit()
                status = await follow_with_hooks(self.watched, self.aws_conn_id, self.log.info)
        except DeadlineError:
            await self._give_up("execution time-out")
            status = TIMED_OUT
        finally:
            warm_up.cancel()
        yield TriggerEvent({"name": self.name, "status": status, "deadline": self.watched.deadline})

    async def submit(self) -> None:
        """Create the job that `request` asks for; raises SubmissionError."""
        if self.request is not None:
            self._submission = asyncio.create_task(asyncio.to_thread(self._submit_now, self.request))
            await asyncio.shield(self._submission)

    async def _give_up(self, reason: str) -> None:
        if self._submission is not None and not self._submission.done():
            # A request that is on its way may yet be accepted.
            await asyncio.wait([self._submission])
        await asyncio.to_thread(self._stop_now, reason)

    def _job(self) -> Job:
        client = SageMakerHook(aws_conn_id=self.aws_conn_id, config=RETRIES).get_conn()
        return Job(client, self.watched.kind, self.watched.name)

    def _submit_now(self, request: dict[str, Any]) -> None:
        job = self._job()
        if job.describe() is None:
            job.submit(request)
            self.log.info("started %s job %s", job.kind, job.name)

    def _stop_now(self, reason: str) -> None:
        if self._job().stop(by="airflow", reason=reason):
            self.log.info("%s is told to stop: %s", self.watched.name, reason)


async def follow_with_hooks(watched: Watched, aws_conn_id: str | None, tell: Any) -> str:
    """`follow` with clients from Airflow's connection."""
    sagemaker = SageMakerHook(aws_conn_id=aws_conn_id, config=RETRIES)
    logs = AwsLogsHook(aws_conn_id=aws_conn_id, config=RETRIES)
    async with await sagemaker.get_async_conn() as client, await logs.get_async_conn() as log_client:
        return await follow(watched, client, log_client, tell)


def task_state(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """The task instance's state in Airflow's database; None when it has none or was deleted."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index
    )
    found = states.get(run_id, {}).get(task_id if map_index < 0 else f"{task_id}_{map_index}")
    return None if found is None else str(getattr(found, "value", found))

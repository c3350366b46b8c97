"""A task that brings a resource to a state step by step, and waits between the steps."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from runtime.sagemaker.owner import SageMakerOwner
from runtime.sagemaker.resource_trigger import SageMakerResourceTrigger, settled_with_hook
from runtime.settings import WorkflowSettings, workflow_settings

# SageMaker gives up a deployment by itself within less.
LONGEST_SECONDS = 7200
SLACK_SECONDS = 300


class SageMakerResourceOperator(SageMakerOwner):
    """Calls `step` until it returns the task's result; in between it waits until the resource rests.

    A step looks at the resource first, so that a retry goes on where the last try was. `memory` is what a try carries
    from step to step: JSON, and empty at its start.
    """

    kind: str
    # What the task owns while it waits, and the trigger has to undo when the task is ended.
    _config: str | None = None

    @property
    def owned_name(self) -> str | None:
        """Nothing, unless a subclass owns something."""
        return None

    def _give_up(self, reason: str) -> None:
        """Nothing, unless a subclass owns something."""

    def resource_name(self) -> str:
        """The resource's name."""
        raise NotImplementedError

    def step(self, context: Any, settings: WorkflowSettings, memory: dict[str, Any]) -> dict[str, Any] | None:
        """Do the next thing; the task's result when all is done, None when the resource has to rest first."""
        raise NotImplementedError

    def execute(self, context: Any) -> dict[str, Any]:
        """From the first step to the last one."""
        longest = self.execution_timeout.total_seconds() if self.execution_timeout else LONGEST_SECONDS
        return self._go_on(context, {}, time.time() + longest)

    def resume(self, context: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """The steps that are left."""
        if event is None:
            # So Airflow resumes a task that was cleared in the moment of its deferral.
            return self.execute(context)
        memory: dict[str, Any] = event["memory"]
        self._config = memory["config"]
        if not event["in_time"]:
            self._give_up("execution time-out")
            raise self._timed_out()
        return self._go_on(context, memory["step"], memory["deadline"])

    def _go_on(self, context: Any, memory: dict[str, Any], deadline: float) -> dict[str, Any]:
        self._instance = context["ti"]
        settings = workflow_settings()
        try:
            while (result := self.step(context, settings, memory)) is None:
                waiting = {"poll_seconds": settings.poll_seconds, "deadline": deadline}
                if self.deferrable:
                    remembered = {"step": memory, "deadline": deadline, "config": self._config}
                    self.defer(
                        trigger=SageMakerResourceTrigger(
                            kind=self.kind,
                            name=self.resource_name(),
                            memory=remembered,
                            config=self._config,
                            aws_conn_id=self.aws_conn_id,
                            **waiting,
                        ),
                        method_name="resume",
                        timeout=timedelta(seconds=max(0, deadline - time.time()) + SLACK_SECONDS),
                    )
                in_time = asyncio.run(
                    settled_with_hook(
                        self.aws_conn_id, self.kind, self.resource_name(), tell=self.log.info, **waiting
                    )
                )
                if not in_time:
                    raise self._timed_out()
        except AirflowTaskTimeout:
            self._give_up("execution time-out")
            raise
        return result

    def _timed_out(self) -> AirflowTaskTimeout:
        return AirflowTaskTimeout(f"{self.kind} {self.resource_name()}: the task's time is up")

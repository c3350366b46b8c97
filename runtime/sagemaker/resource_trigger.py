"""Waits for an endpoint or a notebook instance while its task is deferred."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.triggers.base import TriggerEvent

from runtime.sagemaker.endpoints import Endpoint
from runtime.sagemaker.jobs import RETRIES
from runtime.sagemaker.resources import settled
from runtime.sagemaker.trigger import SageMakerTrigger


class SageMakerResourceTrigger(SageMakerTrigger):
    """Fires once, when the resource rests or is gone, with `memory` and whether it came `in_time`.

    With `config` the task owns a deployment of that configuration, which is undone when the task is ended meanwhile.
    """

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        poll_seconds: float,
        deadline: float,
        memory: dict[str, Any],
        config: str | None = None,
        aws_conn_id: str | None = "aws_default",
    ) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.poll_seconds = poll_seconds
        self.deadline = deadline
        self.memory = memory
        self.config = config
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The arguments that make this trigger again."""
        names = ("kind", "name", "poll_seconds", "deadline", "memory", "config", "aws_conn_id")
        return (
            "runtime.sagemaker.resource_trigger.SageMakerResourceTrigger",
            {name: getattr(self, name) for name in names},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event."""
        warm_up = asyncio.create_task(self._warm_up())
        try:
            with self._leaving_when_cancelled():
                in_time = await settled_with_hook(
                    self.aws_conn_id,
                    self.kind,
                    self.name,
                    poll_seconds=self.poll_seconds,
                    deadline=self.deadline,
                    tell=self.log.info,
                )
        finally:
            warm_up.cancel()
        yield TriggerEvent({"memory": self.memory, "in_time": in_time})

    async def _give_up(self, reason: str) -> None:
        if self.config is not None:
            await asyncio.to_thread(self._undo, self.config, reason)

    def _undo(self, config: str, reason: str) -> None:
        client = SageMakerHook(aws_conn_id=self.aws_conn_id, config=RETRIES).get_conn()
        done = Endpoint(client, self.name).undo(config, by="airflow", reason=reason)
        self.log.info("deployment of %s is given up: %s", self.name, done)


async def settled_with_hook(aws_conn_id: str | None, kind: str, name: str, **asked: Any) -> bool:
    """`settled` with a client from Airflow's connection."""
    hook = SageMakerHook(aws_conn_id=aws_conn_id, config=RETRIES)
    async with await hook.get_async_conn() as client:
        return await settled(client, kind, name, **asked)

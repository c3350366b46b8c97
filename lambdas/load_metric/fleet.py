"""What a sample changes: workers that it starts, and the record that tells the others who stays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambdas.load_metric.logic import Decision, Queue

MOST_TASKS_AT_ONCE = 10
# For so long a task that was started is looked up by its ARN, because ECS lists are eventually consistent.
RECENT_SECONDS = 60
# An unchanged record is written again after this long: workers don't act on an old one.
REWRITE_SECONDS = 30


@dataclass(frozen=True)
class Network:
    """Where workers are started."""

    subnets: list[str]
    security_groups: list[str]
    assign_public_ip: str

    def configuration(self) -> dict[str, Any]:
        """As RunTask takes it."""
        return {
            "awsvpcConfiguration": {
                "subnets": self.subnets,
                "securityGroups": self.security_groups,
                "assignPublicIp": self.assign_public_ip,
            }
        }


class FleetRecord:
    """The SSM parameter of one queue: `written_at`, `take_work`, `keep` and `closing` (addresses of workers)."""

    def __init__(self, ssm: Any, name: str) -> None:
        self._ssm = ssm
        self._name = name
        self._written: dict[str, Any] | None = None

    @property
    def keep(self) -> tuple[str, ...]:
        """Who was kept by the last record; the parameter is read once, since only the sampler writes it."""
        if self._written is None:
            self._written = json.loads(self._ssm.get_parameter(Name=self._name)["Parameter"]["Value"])
        return tuple(self._written.get("keep", ()))

    def write(self, *, keep: Sequence[str], closing: Sequence[str], take_work: bool, now: float) -> None:
        """Write the record when it says something new, or grows old."""
        record = {"take_work": take_work, "keep": list(keep), "closing": list(closing)}
        written: Mapping[str, Any] = self._written or {}
        same = all(written.get(key) == value for key, value in record.items())
        if same and now - written.get("written_at", 0) < REWRITE_SECONDS:
            return
        record |= {"written_at": round(now, 1)}
        text = json.dumps(record, separators=(",", ":"))
        self._ssm.put_parameter(Name=self._name, Value=text, Type="String", Overwrite=True)
        self._written = record


class Launcher:
    """Starts workers by RunTask, and remembers which it started a moment ago."""

    def __init__(self, ecs: Any, cluster: str, network: Network, *, execute_command: bool = False) -> None:
        self._ecs = ecs
        self._cluster = cluster
        self._network = network
        self._execute_command = execute_command
        self._recent: dict[tuple[str, str], float] = {}

    def recent(self, queue: Queue, now: float) -> list[str]:
        """ARNs of the queue's workers started within the last minute."""
        self._recent = {key: at for key, at in self._recent.items() if now - at < RECENT_SECONDS}
        return [arn for family, arn in self._recent if family == queue.task_definition]

    def start(self, queue: Queue, decision: Decision, now: float) -> int:
        """Start what the decision says; what spot has no room for is started on demand.

        Returns the number started; raises RuntimeError when ECS starts fewer than asked.
        """
        spot, reasons = self._run(queue, "FARGATE_SPOT", decision.start_spot, now)
        on_demand, more = self._run(queue, queue.capacity_provider, decision.start - spot, now)
        if spot + on_demand < decision.start:
            raise RuntimeError(
                f"ECS started {spot + on_demand} of {decision.start} workers: {', '.join(reasons + more) or 'no reason given'}"
            )
        return spot + on_demand

    def _run(self, queue: Queue, provider: str, count: int, now: float) -> tuple[int, list[str]]:
        started, reasons = 0, []
        for first in range(0, count, MOST_TASKS_AT_ONCE):
            # boto3 gives each call a client token and keeps it when it repeats the call after a lost answer.
            answer = self._ecs.run_task(
                cluster=self._cluster,
                taskDefinition=queue.task_definition,
                count=min(MOST_TASKS_AT_ONCE, count - first),
                startedBy="load-metric",
                capacityProviderStrategy=[{"capacityProvider": provider, "weight": 1}],
                networkConfiguration=self._network.configuration(),
                enableExecuteCommand=self._execute_command,
            )
            for task in answer["tasks"]:
                self._recent[queue.task_definition, task["taskArn"]] = now
            started += len(answer["tasks"])
            reasons += [failure.get("reason", "unknown") for failure in answer.get("failures", [])]
        return started, reasons

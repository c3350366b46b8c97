"""Following a job: its state, log lines, metrics and cost as they come, for a worker and for the triggerer alike."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runtime.sagemaker.kinds import ENDED, KINDS, billable_seconds, cluster, interruptions

MOST_FAILED_POLLS = 20
MOST_PAGES = 10
SUMMARY_SECONDS = 30
# A watcher that comes late, as after a restart of the triggerer, doesn't repeat what its predecessor told.
LATE_SECONDS = 60
Tell = Callable[[str], None]


class DeadlineError(Exception):
    """The task's execution time-out came before the job's end."""


@dataclass(frozen=True)
class Watched:
    """What to follow. `deadline` is a time in seconds since 1970, None without one; `usd_per_hour` is one
    instance's price, None when it isn't known."""

    kind: str
    name: str
    poll_seconds: float
    deadline: float | None = None
    usd_per_hour: float | None = None

    def serialize(self) -> dict[str, Any]:
        """The fields, as a trigger stores them."""
        return asdict(self)


async def follow(watched: Watched, sagemaker: Any, logs: Any, tell: Tell) -> str:
    """Return the job's final status; raises DeadlineError, or SageMaker's error when too many polls fail in a row.

    `sagemaker` and `logs` are asynchronous clients.
    """
    kind, failed_polls = KINDS[watched.kind], 0
    story = Story(watched, tell)
    reader = LogReader(kind.log_group, watched.name, logs)
    while True:
        try:
            job = await getattr(sagemaker, kind.describe)(**{kind.name_key: watched.name})
            failed_polls = 0
        except (BotoCoreError, ClientError) as error:
            failed_polls += 1
            if failed_polls >= MOST_FAILED_POLLS:
                raise
            tell(f"the state of {watched.name} is unknown for now: {error}")
        else:
            story.take_job(job)
            for line in await reader.new_lines(job):
                story.take_line(line)
            story.summarize(final=job[kind.status_key] in ENDED)
            if job[kind.status_key] in ENDED:
                return str(job[kind.status_key])
        if watched.deadline is not None and time.time() >= watched.deadline:
            raise DeadlineError
        await asyncio.sleep(watched.poll_seconds)


class Story:
    """Turns descriptions and log lines into what a person wants to read."""

    def __init__(self, watched: Watched, tell: Tell) -> None:
        self._watched = watched
        self._tell = tell
        self._state = ""
        self._summarized_at = time.monotonic()
        self._job: dict[str, Any] = {}
        self._metrics: dict[str, tuple[str, int]] = {}
        self._patterns: list[tuple[str, re.Pattern[str]]] | None = None

    def take_job(self, job: dict[str, Any]) -> None:
        """Tell the state when it has changed."""
        self._job = job
        state = f"{job[KINDS[self._watched.kind].status_key]} {job.get('SecondaryStatus', '')}".strip()
        if state != self._state:
            self._tell(f"{self._watched.kind} job {self._watched.name}: {state}")
            self._state = state

    def take_line(self, line: str) -> None:
        """Tell a log line, and remember the metrics in it."""
        self._tell(f"| {line}")
        if self._patterns is None:
            self._patterns = list(_metric_patterns(self._job))
        for name, pattern in self._patterns:
            if match := pattern.search(line):
                value = match[1] if pattern.groups else match[0]
                self._metrics[name] = (value, self._metrics.get(name, ("", 0))[1] + 1)

    def summarize(self, *, final: bool) -> None:
        """Tell how far the job is and what it has cost, every half minute and at the end."""
        if not final and time.monotonic() - self._summarized_at < SUMMARY_SECONDS:
            return
        self._summarized_at = time.monotonic()
        self._tell(self.summary(datetime.now(UTC)))

    def summary(self, now: datetime) -> str:
        """Metrics with the number of rounds they came from, interruptions, billable seconds and cost until now."""
        parts = [f"{name} {value} (round {count})" for name, (value, count) in self._metrics.items()]
        if self._watched.kind == "tuning":
            counters = self._job.get("TrainingJobStatusCounters", {})
            parts += [
                f"{counters.get('Completed', 0)} trainings completed, {counters.get('InProgress', 0)} running"
            ]
        else:
            seconds = billable_seconds(self._watched.kind, self._job, now)
            parts.append(f"{seconds} billable seconds")
            if self._watched.usd_per_hour is not None:
                _, count = cluster(self._watched.kind, self._job)
                parts.append(f"${seconds / 3600 * count * self._watched.usd_per_hour:.4f} so far")
            if lost := interruptions(self._job):
                parts.append(f"interrupted {lost} times")
        return "; ".join(parts)


class LogReader:
    """New lines of a job's CloudWatch log streams since the last call; a job can do without its log."""

    def __init__(self, group: str | None, name: str, logs: Any) -> None:
        self._group = group
        self._name = name
        self._logs = logs
        self._tokens: dict[str, str] = {}
        self._since_milliseconds: int | None = None

    async def new_lines(self, job: dict[str, Any]) -> list[str]:
        """Lines in each stream's order; none where the log can't be read now, since the next poll reads on."""
        if self._group is None:
            return []
        if self._since_milliseconds is None:
            now, created = datetime.now(UTC), job["CreationTime"]
            late = (now - created).total_seconds() > LATE_SECONDS
            self._since_milliseconds = int((now if late else created).timestamp() * 1000)
        lines: list[str] = []
        try:
            answer = await self._logs.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=f"{self._name}/"
            )
            for stream in answer["logStreams"]:
                lines += await self._read(stream["logStreamName"])
        except (BotoCoreError, ClientError):
            return lines
        return lines

    async def _read(self, stream: str) -> list[str]:
        lines: list[str] = []
        for _ in range(MOST_PAGES):
            token = self._tokens.get(stream)
            answer = await self._logs.get_log_events(
                logGroupName=self._group,
                logStreamName=stream,
                startFromHead=True,
                startTime=self._since_milliseconds,
                **({"nextToken": token} if token else {}),
            )
            self._tokens[stream] = answer["nextForwardToken"]
            lines += [event["message"].rstrip() for event in answer["events"]]
            if not answer["events"] or answer["nextForwardToken"] == token:
                break
        return lines


def _metric_patterns(job: dict[str, Any]) -> Iterator[tuple[str, re.Pattern[str]]]:
    for each in job.get("AlgorithmSpecification", {}).get("MetricDefinitions", []):
        try:
            yield each["Name"], re.compile(each["Regex"])
        except re.error:
            continue  # SageMaker's own reading of the metric doesn't depend on ours

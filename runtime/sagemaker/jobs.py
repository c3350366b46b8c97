"""One job on SageMaker: started exactly once, described, stopped with the reason on it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runtime.sagemaker.kinds import ENDED, KINDS, is_absence

# A job that is stopped gets SIGTERM, two minutes, and then uploads what it has.
STOP_SECONDS = 600
STOP_POLL_SECONDS = 2
# Retries back off with jitter; together they outlast a minute of throttling.
RETRIES = {"retries": {"mode": "standard", "total_max_attempts": 8}, "connect_timeout": 5, "read_timeout": 30}
STOPPED_BY, STOP_REASON = "updraft:stopped-by", "updraft:stop-reason"


class SubmissionError(RuntimeError):
    """SageMaker did not take a job, and no job of its name is there."""


class Job:
    """A job by its kind and name, whether it exists or not. `client` is boto3's of SageMaker."""

    def __init__(self, client: Any, kind: str, name: str) -> None:
        self._client = client
        self._kind = KINDS[kind]
        self.kind = kind
        self.name = name

    def describe(self) -> dict[str, Any] | None:
        """The description, None when there is no such job."""
        try:
            found: dict[str, Any] = getattr(self._client, self._kind.describe)(
                **{self._kind.name_key: self.name}
            )
        except ClientError as error:
            if is_absence(error):
                return None
            raise
        return found

    def status(self) -> str | None:
        """`InProgress`, `Stopping`, `Completed`, `Failed` or `Stopped`; None when there is no such job."""
        found = self.describe()
        return None if found is None else str(found[self._kind.status_key])

    def submit(self, request: Mapping[str, Any]) -> None:
        """Create the job; an error that came although it was accepted is none. Raises SubmissionError."""
        try:
            getattr(self._client, self._kind.create)(**request, **{self._kind.name_key: self.name})
        except (ClientError, BotoCoreError) as error:
            # A retry of a request whose answer was lost finds its own name in use.
            if self.describe() is None:
                raise SubmissionError(
                    f"SageMaker did not take {self.kind} job {self.name}: {error}"
                ) from error

    def stop(self, *, by: str, reason: str) -> bool:
        """Ask for the stop of a job that runs, and say on it who asked and why; False when there was none to stop."""
        try:
            # First of all: a task that is killed has five seconds.
            getattr(self._client, self._kind.stop)(**{self._kind.name_key: self.name})
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            return False  # it has ended, or never was
        found = self.describe()
        if found is None or found[self._kind.status_key] not in ("Stopping", "Stopped"):
            return False
        self._client.add_tags(ResourceArn=found[self._kind.arn_key], Tags=stop_tags(by, reason))
        return True

    def wait_until_ended(self) -> None:
        """Return when the job has ended; raises TimeoutError when it takes longer than any stop does."""
        deadline = time.monotonic() + STOP_SECONDS
        while (status := self.status()) is not None and status not in ENDED:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.kind} job {self.name} is still {status} {STOP_SECONDS} s after its stop; "
                    "its successor would be paid beside it"
                )
            time.sleep(STOP_POLL_SECONDS)


def stop_tags(by: str, reason: str) -> list[dict[str, str]]:
    """Tags that tell the ledger who stopped a job, and why."""
    return [
        {"Key": key, "Value": re.sub(r"[^\w\s+=.:/@-]", "_", value)[:256]}
        for key, value in ((STOPPED_BY, by), (STOP_REASON, reason))
    ]

"""How a job ends."""

from __future__ import annotations

from typing import Any

# The last secondary statuses that SageMaker documents, each with a message.
ENDS = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job exceeded its maximum runtime",
}


def ended(transitions: list[dict[str, Any]], secondary: str, at: float) -> list[dict[str, Any]]:
    """A training's transitions with its last one, in which whoever follows them sees that it has ended."""
    last = {"Status": secondary, "StartTime": at, "EndTime": at, "StatusMessage": ENDS[secondary]}
    return [*({"EndTime": at} | each for each in transitions), last]


class JobFailedError(Exception):
    """Why a job failed, as SageMaker words its FailureReason."""


class JobEndedError(Exception):
    """The job was stopped, or ran out of time."""

    def __init__(self, status: str, secondary: str) -> None:
        super().__init__(secondary)
        self.status = status
        self.secondary = secondary


class SpotInterruptionError(Exception):
    """Spot took the instance away; the job goes on with another one."""

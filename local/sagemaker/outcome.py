"""How a job ends before its container has ended well."""

from __future__ import annotations


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

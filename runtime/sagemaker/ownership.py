"""Which job a try of a task takes: the one that its predecessor left, or a new one.

The task's state store remembers one record for a task instance across its tries. It is written before the job is
submitted, so that a crash at any moment leaves a name to look for. A clear raises the task instance's `max_tries`, a
retry doesn't: that tells a user's wish for a new job from a worker that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runtime.sagemaker.kinds import ENDED

STATE_KEY = "sagemaker_job"


@dataclass(frozen=True)
class Claim:
    """A job's name, its number among the jobs of this task instance, and the task's tries when it was claimed.

    `max_tries` is the task instance's, `retries` what its DAG says. `instance` counts the instance types that had no
    capacity for the jobs before it.
    """

    name: str
    number: int
    max_tries: int
    retries: int
    instance: int = 0

    @classmethod
    def read(cls, store: Any) -> Claim | None:
        """What an earlier try has claimed."""
        value = store.get(STATE_KEY)
        return cls(**value) if value else None

    def is_before_a_clear(self, *, max_tries: int, retries: int) -> bool:
        """Whether the task was cleared since.

        Other `retries` mean another version of the DAG, which a retry doesn't get and a clear may: Airflow makes
        `max_tries` at a clear from the tries so far and `retries`, so that fewer of them may give the same number
        again.
        """
        return (self.max_tries, self.retries) != (max_tries, retries)

    def write(self, store: Any) -> None:
        """Remember this claim for later tries."""
        store.set(STATE_KEY, asdict(self))


@dataclass(frozen=True)
class Decision:
    """`take` the claimed job, `submit` it again because SageMaker never got it, or `renew` with another name."""

    action: Literal["take", "submit", "renew"]
    reason: str


def decide(claim: Claim, status: str | None, *, max_tries: int, retries: int) -> Decision:
    """What a try does about an earlier claim; `status` is the claimed job's, None when there is no such job."""
    if claim.is_before_a_clear(max_tries=max_tries, retries=retries):
        return Decision("renew", "the task was cleared")
    if status is None:
        return Decision("submit", "its submission never arrived")
    if status == "InProgress":
        return Decision("take", "it still runs")
    if status == "Completed":
        return Decision("take", "it has completed meanwhile")
    return Decision("renew", f"it is {status}")


def first_free(name_of: Callable[[int], str], status_of: Callable[[str], str | None], *, start: int) -> int:
    """The first number whose name SageMaker has never seen: names of an earlier life of the same run are taken."""
    number = start
    while status_of(name_of(number)) is not None:
        number += 1
    return number


def is_active(status: str | None) -> bool:
    """Whether a job of this status is still billed."""
    return status is not None and status not in ENDED

"""When a worker stops consuming, comes back, and leaves. Pure: no clock, no Celery, no AWS.

Nobody ever stops a busy worker. It stops consuming first and looks again, so a task that arrives meanwhile is run.
"""

from __future__ import annotations

from enum import Enum

# After consuming has stopped, a message on its way gets this long to arrive and be seen.
SETTLE_SECONDS = 3.0


class Order(Enum):
    """What the fleet wants of a worker."""

    STAY = "stay"
    SPARE = "spare"
    """There are enough without it: it leaves when that lasts."""
    CLOSE = "close"
    """A newer revision has taken over, or the environment goes to sleep: it takes no more work from now on."""


class Action(Enum):
    """What a worker does until its next tick."""

    CONSUME = "consume"
    HOLD = "hold"
    """Take no new task, and finish those it has, for however long."""
    LEAVE = "leave"


class Departure:
    """Decides tick by tick. A worker that has been spare for `idle_seconds` on end gives up consuming."""

    def __init__(self, *, idle_seconds: float, now: float) -> None:
        self._idle_seconds = idle_seconds
        self._wanted_at = now
        self._quiet_since: float | None = None

    def tick(self, *, order: Order, busy_slots: int, consuming: bool, now: float) -> Action:
        """Decide from what is seen now: `busy_slots` counts tasks reserved or running, `consuming` what is so.

        `LEAVE` comes only when consuming was seen stopped and no slot busy for the settling time on end.
        """
        if order is Order.STAY:
            self._wanted_at = now
        spare_for_long = now - self._wanted_at >= self._idle_seconds
        if order is Order.STAY or (order is Order.SPARE and not spare_for_long):
            self._quiet_since = None
            return Action.CONSUME
        if consuming or busy_slots:
            self._quiet_since = None
            return Action.HOLD
        if self._quiet_since is None:
            self._quiet_since = now
        return Action.LEAVE if now - self._quiet_since >= SETTLE_SECONDS else Action.HOLD

"""Falls asleep and wakes up one step at a time, from what is seen now. Pure: no AWS, no clock.

Nothing is kept but what can't be seen again once the database is stopped, so an interruption anywhere is harmless:
the next look goes on where the last one stopped, or back when somebody changed his mind.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

AWAKE, FALLING, ASLEEP, WAKING = "awake", "falling-asleep", "asleep", "waking"
# A DAG with this tag wakes the environment for its scheduled runs.
WAKE_TAG = "wake"
# RDS needs up to ten minutes to start, the services a few more.
WAKE_AHEAD_SECONDS = 15 * 60
# A tagged run that is due has surely begun so long after the environment woke for it.
NAP_SECONDS = WAKE_AHEAD_SECONDS + 10 * 60
# Falling asleep for less isn't worth it.
SHORTEST_SLEEP_SECONDS = 15 * 60
SCHEDULER = "scheduler"
# Without these no task runs; what an environment has besides must not keep it from waking.
AIRFLOW = frozenset({"control-plane", "webserver", "dag-processor", "triggerer", SCHEDULER})
# The instance answers in all of these; in any other it is on its way.
DATABASE_USABLE = frozenset(
    {"available", "backing-up", "modifying", "storage-optimization", "configuring-enhanced-monitoring"}
)


@dataclass(frozen=True)
class Memory:
    """`counts`: each service's tasks when awake; `touched`: something is not as it is when awake;
    `wake_at`: when to wake by itself, in seconds since the epoch."""

    counts: dict[str, int] = field(default_factory=dict)
    touched: bool = False
    wake_at: float | None = None


@dataclass(frozen=True)
class Service:
    """An ECS service: how many tasks it should have, and has."""

    name: str
    wanted: int
    running: int


@dataclass(frozen=True)
class Work:
    """What the metadata database says: task instances `queued` and `running`, `tagged_runs` under way, and when the
    next tagged run is due (seconds since the epoch)."""

    queued: int
    running: int
    tagged_runs: int
    next_tagged_run: float | None


@dataclass(frozen=True)
class Observed:
    """Everything as it is now. `jobs`: living SageMaker jobs; `notebooks`: notebook instances that run; `endpoints`:
    those whose deployment is or was a moment ago under way; `changes`: deployments under way; `work` is None where the
    database could not be asked; `rules` holds whether the environment's scheduled rules are on (both for some each)."""

    now: float
    wants_sleep: bool
    state: str
    memory: Memory
    services: tuple[Service, ...]
    workers: int
    other_tasks: int
    database: str
    bastion: str
    rules: frozenset[bool]
    jobs: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    work: Work | None = None


@dataclass(frozen=True)
class Say:
    """Publish the state that the load metric obeys."""

    state: str


@dataclass(frozen=True)
class Remember:
    """Store the memory."""

    memory: Memory


@dataclass(frozen=True)
class Scale:
    """Set a service's count of tasks."""

    service: str
    count: int


@dataclass(frozen=True)
class SwitchDatabase:
    """Start or stop the database."""

    on: bool


@dataclass(frozen=True)
class SwitchBastion:
    """Start or stop the bastion, which may be the NAT."""

    on: bool


@dataclass(frozen=True)
class SwitchRules:
    """Enable or disable the environment's scheduled rules: their functions would fail without a database."""

    on: bool


Step = Say | Remember | Scale | SwitchDatabase | SwitchBastion | SwitchRules


@dataclass(frozen=True)
class Decision:
    """The next step; without one either `reason` says what is waited for, or everything is as asked."""

    step: Step | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        return self.step is None and not self.reason


def decide(seen: Observed) -> Decision:
    """The next step towards what is asked."""
    if not sleeps_now(seen):
        return wake(seen) if seen.memory.touched else Decision()
    if seen.state == ASLEEP:
        return stay_asleep(seen)
    if seen.database in DATABASE_USABLE:
        return fall_asleep(seen)
    if seen.database == "stopped":
        return finish(seen)
    return Decision(reason=f"the database is {seen.database}")


def sleeps_now(seen: Observed) -> bool:
    """Whether it should be asleep: as asked, but for the time around the next tagged run."""
    wake_at = seen.memory.wake_at
    naps = wake_at is not None and wake_at <= seen.now < wake_at + NAP_SECONDS
    return seen.wants_sleep and not naps


def stay_asleep(seen: Observed) -> Decision:
    """RDS starts a stopped instance by itself after seven days: it is stopped again. A notebook instance that somebody
    starts has the bastion, through which it stops itself, as long as it runs."""
    if any(service.wanted for service in seen.services):
        # Somebody scaled a service up by hand: the whole way is gone again, looking for work first.
        return Decision(Say(FALLING))
    if seen.database == "available":
        return Decision(SwitchDatabase(on=False))
    if seen.database != "stopped":
        return Decision(reason=f"the database is {seen.database}")
    if seen.notebooks and seen.bastion == "stopped":
        return Decision(SwitchBastion(on=True))
    if not seen.notebooks and seen.bastion == "running":
        return Decision(SwitchBastion(on=False))
    return Decision()


def fall_asleep(seen: Observed) -> Decision:
    """With the database up: no new work, workers finish and leave, services to zero, and last the database."""
    if reason := reason_to_stay(seen):
        return back_up(seen, reason)
    assert seen.work is not None, "without it there is a reason to stay"
    counts = seen.memory.counts | {item.name: item.wanted for item in seen.services if item.wanted}
    memory = Memory(counts, touched=True, wake_at=wake_time(seen.work))
    if seen.memory != memory:
        return Decision(Remember(memory))
    tasks = f"{seen.work.running} running and {seen.work.queued} queued tasks"
    busy = seen.work.queued or seen.work.running
    if busy and seen.state != AWAKE:
        # With the workers told to leave, what is queued would lie until the morning, and its token expire.
        return back_up(seen, tasks)
    scheduler = next((item for item in seen.services if item.name == SCHEDULER), None)
    if scheduler is not None and scheduler.wanted:
        return Decision(Scale(SCHEDULER, 0))
    if scheduler is not None and scheduler.running:
        return Decision(reason="the scheduler is stopping")
    if busy:
        return Decision(reason=tasks)
    if seen.state != FALLING:
        return Decision(Say(FALLING))
    if seen.workers:
        return Decision(reason=f"{seen.workers} workers are leaving")
    if True in seen.rules:
        return Decision(SwitchRules(on=False))
    if waiting := to_zero(seen):
        return waiting
    return Decision(SwitchDatabase(on=False))


def reason_to_stay(seen: Observed) -> str:
    """Why it must not fall asleep now, or nothing."""
    if seen.jobs:
        return f"SageMaker jobs live: {', '.join(seen.jobs)}"
    if seen.notebooks:
        return f"notebook instances run: {', '.join(seen.notebooks)}"
    if seen.endpoints:
        return f"endpoints are or were just being deployed: {', '.join(seen.endpoints)}"
    if seen.changes:
        return f"being changed: {', '.join(seen.changes)}"
    if seen.other_tasks:
        return f"{seen.other_tasks} one-off tasks run"
    if seen.work is None:
        return "the database can't be read"
    if seen.work.tagged_runs:
        return f"{seen.work.tagged_runs} runs of DAGs tagged '{WAKE_TAG}' go on"
    wake_at = wake_time(seen.work)
    if wake_at is not None and wake_at - seen.now < SHORTEST_SLEEP_SECONDS:
        return f"a run of a DAG tagged '{WAKE_TAG}' is due soon"
    return ""


def wake_time(work: Work) -> float | None:
    """When to wake for the next tagged run."""
    return None if work.next_tagged_run is None else work.next_tagged_run - WAKE_AHEAD_SECONDS


def back_up(seen: Observed, reason: str) -> Decision:
    """Undo what has been done, so that what lives can go on; then wait."""
    if not seen.memory.touched:
        return Decision(reason=reason)
    decision = wake(seen)
    return decision if decision.step else Decision(reason=f"{reason} ({decision.reason})".replace(" ()", ""))


def to_zero(seen: Observed) -> Decision | None:
    """Scale the services down, one after the other, and wait until they are gone."""
    for service in seen.services:
        if service.wanted:
            return Decision(Scale(service.name, 0))
    running = [service.name for service in seen.services if service.running]
    return Decision(reason=f"stopping: {', '.join(running)}") if running else None


def finish(seen: Observed) -> Decision:
    """With the database stopped: whatever an interruption left running."""
    if True in seen.rules:
        return Decision(SwitchRules(on=False))
    if waiting := to_zero(seen):
        return waiting
    if not seen.notebooks:
        if seen.bastion == "running":
            return Decision(SwitchBastion(on=False))
        if seen.bastion != "stopped":
            return Decision(reason=f"the bastion is {seen.bastion}")
    return Decision(Say(ASLEEP))


def wake(seen: Observed) -> Decision:
    """The same way back: bastion, database, services, the scheduler last."""
    if seen.state in (ASLEEP, FALLING):
        return Decision(Say(WAKING))
    if seen.bastion == "stopped":
        return Decision(SwitchBastion(on=True))
    if seen.bastion != "running":
        return Decision(reason=f"the bastion is {seen.bastion}")
    if seen.database == "stopped":
        return Decision(SwitchDatabase(on=True))
    if seen.database not in DATABASE_USABLE:
        return Decision(reason=f"the database is {seen.database}")
    others = [item for item in seen.services if item.name != SCHEDULER]
    for some in (others, [item for item in seen.services if item.name == SCHEDULER]):
        for service in some:
            if not service.wanted and seen.memory.counts.get(service.name):
                return Decision(Scale(service.name, seen.memory.counts[service.name]))
        starting = [item.name for item in some if item.name in AIRFLOW and item.running < item.wanted]
        if starting:
            return Decision(reason=f"starting: {', '.join(starting)}")
    if False in seen.rules:
        return Decision(SwitchRules(on=True))
    if seen.state != AWAKE:
        return Decision(Say(AWAKE))
    return Decision(Remember(replace(seen.memory, touched=False)))

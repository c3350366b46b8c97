"""Sleep and wake: whatever is asked, in whatever order, with calls that fail, ends as asked; nobody's work is cut off."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.sleep import handler, logic
from lambdas.sleep.account import SERVICES, Account
from lambdas.sleep.logic import Memory, Observed, Service, Work, decide
from tests.lambdas.sleeping_account import SETTINGS, Clients, Environment

MINUTE = 60.0
SEQUENCES = 1000
CHUNKS = 20
# Until when each lasts that somebody begins in an environment that is awake.
LASTS = {
    "deploy": "stack_until",
    "push": "push_until",
    "notebook": "notebook_until",
    "endpoint": "endpoint_until",
}
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
# The longest way: a training of 50 minutes that started last, tagged runs one after the other, and RDS both ways.
LONGEST_MINUTES = 6 * 60


class Sleeper:
    """The function invoked every minute on a world, and what a person does in between."""

    def __init__(self, seed: int) -> None:
        self.world = Environment(seed, merged=bool(seed % 2))
        self.account = Account(SETTINGS, Clients(self.world))
        self.failures = 0

    def minute(self) -> None:
        """One invocation; a failed one is made up for by the next."""
        try:
            self._advance()
        except ClientError:
            self.failures += 1
        self.world.pass_time(MINUTE)

    def _advance(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: self.world.now)
            handler.advance(self.account, CONTEXT)

    def ask(self, *, sleep: bool) -> None:
        """The command, given again until it is taken."""
        while True:
            try:
                self.account.ask(sleep=sleep)
                return
            except ClientError:
                self.failures += 1

    def settle(self) -> bool:
        """Whether it is as asked within the longest time; nothing fails any more."""
        self.world.failing.clear()
        wants = self.world.parameters["/updraft/dev/sleep/wanted"]
        for _ in range(LONGEST_MINUTES):
            self.minute()
            if self.world.awake if wants == logic.AWAKE else self.world.asleep:
                return True
        return False

    def change(self, kind: str) -> None:
        """Begin one of `LASTS`: wakes first, and gives up when that takes too long."""
        self.ask(sleep=False)
        for _ in range(40):
            self.minute()
            if self.world.awake:
                break
        else:
            return
        setattr(self.world, LASTS[kind], self.world.now + self.world.random.randint(60, 1200))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_sequences_end_as_asked(chunk: int) -> None:
    for seed in range(chunk, SEQUENCES, CHUNKS):
        sleeper = Sleeper(seed)
        world = sleeper.world
        for _ in range(world.random.randint(2, 7)):
            action = world.random.choice(["sleep", "sleep", "wake", "notebook by hand", *LASTS])
            if action in ("sleep", "wake"):
                sleeper.ask(sleep=action == "sleep")
            elif action == "notebook by hand":
                world.notebook_until = world.now + world.random.randint(60, 1200)
            else:
                sleeper.change(action)
            for _ in range(world.random.choice([0, 1, 3, 10, 40])):
                if world.random.random() < 0.15:
                    world.failing = [world.random.choice(["refused", "lost"])]
                    world.failing += ["works"] * world.random.randint(0, 60)
                sleeper.minute()
        sleeper.ask(sleep=world.random.random() < 0.6)
        assert sleeper.settle(), f"seed {seed}: not as asked: {world.parameters}, {world.database}"
        assert world.wrong == [], f"seed {seed}"
        if not world.awake:
            sleeper.ask(sleep=False)
            assert sleeper.settle(), f"seed {seed}: did not wake"
        # What was begun ends, in less than two hours awake.
        begun = list(world.runs)
        for _ in range(120):
            if all(run.state == "done" for run in begun):
                break
            sleeper.minute()
        assert world.wrong == [], f"seed {seed}"
        assert {run.state for run in begun} <= {"done"}, f"seed {seed}"


def test_some_calls_did_fail_and_some_sleeps_were_real() -> None:
    failures, slept = 0, 0
    for seed in range(20):
        sleeper = Sleeper(seed)
        sleeper.ask(sleep=True)
        sleeper.world.failing = ["lost"] + ["works"] * (seed * 3)
        for _ in range(60):
            sleeper.minute()
        failures += sleeper.failures
        slept += sleeper.world.asleep
    # A failed look for a stack that isn't there reads as no such stack.
    assert failures >= 17
    assert slept >= 15


def test_it_wakes_by_itself_for_a_tagged_run_and_sleeps_again() -> None:
    sleeper = Sleeper(4)
    world = sleeper.world
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    due = world.tagged_at
    while not world.awake:
        sleeper.minute()
        assert world.now < due, "it is not awake in time"
    while not any(run.tagged for run in world.runs):
        sleeper.minute()
        assert world.now < due + 2 * MINUTE
    assert sleeper.settle()
    assert [run.state for run in world.runs if run.tagged] == ["done"]
    assert world.wrong == []


def test_an_hourly_dag_wakes_nothing() -> None:
    sleeper = Sleeper(2)
    world = sleeper.world
    world.tagged_at = world.now + 30 * 86_400
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    runs = len(world.runs)
    for _ in range(5 * 60):
        sleeper.minute()
        assert world.asleep
    assert len(world.runs) == runs


def test_a_database_that_rds_started_by_itself_is_stopped_again() -> None:
    sleeper = Sleeper(6)
    world = sleeper.world
    world.tagged_at = world.now + 30 * 86_400
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    world.database, world.database_at = "starting", world.now + 300
    for _ in range(10):
        sleeper.minute()
    assert world.asleep


def test_a_service_that_was_scaled_up_by_hand_goes_to_sleep_again() -> None:
    sleeper = Sleeper(8)
    sleeper.world.tagged_at += 30 * 86_400
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    sleeper.world.services["webserver"][:] = [1, 1, 0.0]
    assert sleeper.settle()


@pytest.mark.parametrize(
    ("status", "stays"),
    [
        ("Pending", True),
        ("InService", True),
        ("Stopping", True),
        ("Updating", True),
        ("PendingMaintenance", True),
        ("InMaintenance", True),
        ("Stopped", False),
        ("Failed", False),
        ("Deleting", False),
    ],
)
def test_a_notebook_instance_keeps_it_awake_until_it_rests(status: str, stays: bool) -> None:
    sleeper = Sleeper(2)
    sleeper.world.notebook_status, sleeper.world.notebook_until = status, sleeper.world.now + 3600
    assert looked(sleeper).notebooks == (("updraft-dev-notebook",) if stays else ())


def test_a_notebook_that_is_started_while_it_sleeps_has_the_bastion_until_it_stops() -> None:
    sleeper = Sleeper(8)
    world = sleeper.world
    world.tagged_at += 30 * 86_400
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    world.notebook_until = world.now + 30 * MINUTE
    for _ in range(3):
        sleeper.minute()
    for _ in range(20):
        assert (world.bastion, world.database) == ("running", "stopped")
        assert world.parameters["/updraft/dev/sleep/state"] == logic.ASLEEP
        sleeper.minute()
    assert sleeper.settle()
    assert (world.bastion, world.wrong) == ("stopped", [])


def test_a_notebook_that_is_started_while_the_database_stops_keeps_the_bastion() -> None:
    going = seen(
        database="stopped", services=(), rules=frozenset({False}), notebooks=("updraft-dev-notebook",)
    )
    assert decide(going).step == logic.Say(logic.ASLEEP)


@pytest.mark.parametrize(
    ("status", "stays"),
    [
        ("Creating", True),
        ("Updating", True),
        ("SystemUpdating", True),
        ("RollingBack", True),
        ("Deleting", False),
        ("InService", False),
        ("OutOfService", False),
        ("Failed", False),
        ("UpdateRollbackFailed", False),
    ],
)
def test_an_endpoint_keeps_it_awake_while_it_is_deployed(status: str, stays: bool) -> None:
    sleeper = Sleeper(2)
    sleeper.world.endpoint_status, sleeper.world.endpoint_until = status, sleeper.world.now + 3600
    assert looked(sleeper).endpoints == (("updraft-dev-pets",) if stays else ())


def test_an_endpoint_keeps_it_awake_until_the_reaper_has_had_its_turn() -> None:
    sleeper = Sleeper(2)
    sleeper.world.endpoint_until = sleeper.world.now
    sleeper.world.pass_time(6 * MINUTE)
    assert looked(sleeper).endpoints == ("updraft-dev-pets",)
    sleeper.world.pass_time(5 * MINUTE)
    assert looked(sleeper).endpoints == ()


def looked(sleeper: Sleeper) -> Observed:
    sleeper.ask(sleep=True)
    return sleeper.account.observe(sleeper.world.now)


@pytest.mark.parametrize("old", ["terminated", "shutting-down", "stopping"])
def test_a_replaced_bastion_sleeps_and_wakes_in_place_of_the_old_one(old: str) -> None:
    sleeper = Sleeper(8)
    world = sleeper.world
    world.tagged_at += 30 * 86_400
    world.replaced = [old]
    sleeper.ask(sleep=True)
    assert sleeper.settle()
    sleeper.ask(sleep=False)
    assert sleeper.settle()
    assert world.bastion == "running"


def test_without_a_bastion_it_says_so_and_waits() -> None:
    sleeper = Sleeper(8)
    sleeper.world.bastion = "terminated"
    assert sleeper.account.observe(sleeper.world.now).bastion == "terminated"
    assert decide(seen(database="stopped", bastion="terminated", rules=frozenset({False}), services=())) == (
        logic.Decision(reason="the bastion is terminated")
    )


# The rules one by one


def seen(**values: Any) -> Observed:
    given: dict[str, Any] = {
        "now": 1000.0,
        "wants_sleep": True,
        "state": logic.AWAKE,
        "memory": Memory({"webserver": 1, "scheduler": 1}, touched=True),
        "services": (Service("webserver", 1, 1), Service("scheduler", 0, 0)),
        "workers": 0,
        "other_tasks": 0,
        "database": "available",
        "bastion": "running",
        "rules": frozenset({True}),
        "work": Work(0, 0, 0, None),
    }
    return Observed(**(given | values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"jobs": ("updraft-dev-train",)}, "SageMaker jobs live: updraft-dev-train"),
        ({"notebooks": ("updraft-dev-notebook",)}, "notebook instances run: updraft-dev-notebook"),
        (
            {"endpoints": ("updraft-dev-pets",)},
            "endpoints are or were just being deployed: updraft-dev-pets",
        ),
        ({"changes": ("stack x",)}, "being changed: stack x"),
        ({"other_tasks": 1}, "1 one-off tasks run"),
        ({"work": None}, "the database can't be read"),
        ({"work": Work(0, 0, 2, None)}, "2 runs of DAGs tagged 'wake' go on"),
        ({"work": Work(0, 0, 0, 1900.0)}, "a run of a DAG tagged 'wake' is due soon"),
    ],
)
def test_it_refuses_to_sleep_and_says_why(values: dict[str, Any], reason: str) -> None:
    untouched = seen(memory=Memory(), services=(Service("webserver", 1, 1),), **values)
    assert decide(untouched) == logic.Decision(reason=reason)
    # Half-way down, everything is brought back so that what lives can go on.
    assert decide(seen(**values)).step == logic.Scale("scheduler", 1)


def test_a_service_that_is_not_airflows_keeps_nothing_from_waking() -> None:
    going = {"wants_sleep": False, "state": logic.WAKING, "rules": frozenset({False})}
    services = (Service("webserver", 1, 1), Service("mlflow", 0, 0), Service("scheduler", 0, 0))
    memory = Memory({"webserver": 1, "mlflow": 1, "scheduler": 1}, touched=True)
    assert decide(seen(services=services, memory=memory, **going)).step == logic.Scale("mlflow", 1)
    asked = (Service("webserver", 1, 1), Service("mlflow", 1, 0), Service("scheduler", 0, 0))
    assert decide(seen(services=asked, memory=memory, **going)).step == logic.Scale("scheduler", 1)
    missing = (Service("webserver", 1, 0), Service("mlflow", 1, 1), Service("scheduler", 0, 0))
    assert decide(seen(services=missing, memory=memory, **going)).reason == "starting: webserver"


def test_what_is_not_touched_is_left_alone_when_awake() -> None:
    stopped_by_hand = (Service("webserver", 0, 0),)
    assert decide(seen(wants_sleep=False, memory=Memory({"webserver": 1}), services=stopped_by_hand)).done


def test_counts_are_remembered_before_the_first_service_goes() -> None:
    services = (Service("webserver", 2, 2), Service("scheduler", 1, 1))
    decision = decide(seen(memory=Memory(), services=services))
    assert decision.step == logic.Remember(Memory({"webserver": 2, "scheduler": 1}, touched=True))


def test_an_unknown_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "read_settings", lambda: SETTINGS)
    monkeypatch.setattr(handler, "_clients", dict)
    with pytest.raises(ValueError, match="'nap' is neither sleep nor wake"):
        handler.handler({"command": "nap"}, CONTEXT)


def test_a_container_makes_its_clients_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(boto3, "client", made.append)
    handler._clients.cache_clear()
    try:
        assert handler._clients() is handler._clients()
    finally:
        handler._clients.cache_clear()
    assert sorted(made) == sorted(SERVICES)

"""How many workers are wanted, who stays, how they are started, and that a failed sample changes nothing."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.load_metric import fleet, handler
from lambdas.load_metric.fleet import FleetRecord, Launcher, Network
from lambdas.load_metric.logic import Decision, Load, Queue, Worker, decide
from lambdas.load_metric.observation import live_workers
from lambdas.shared.database import Database

FAMILY = "updraft-test-worker-default"
QUEUE = Queue("default", FAMILY, slots=8, min=1, max=4, start_seconds=60)
NOW = 1_800_000_000.0
counts = st.integers(min_value=0, max_value=500)


def workers(
    running: list[int], *, current: bool = True, first: int = 0
) -> tuple[list[Worker], dict[str, int]]:
    addresses = [f"10.0.0.{first + number}" for number in range(len(running))]
    return [Worker(address, current=current, starting=False) for address in addresses], dict(
        zip(addresses, running, strict=True)
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Queue, Load, list[Worker], set[str]]:
    least = draw(st.integers(0, 5))
    queue = Queue(
        "default",
        FAMILY,
        slots=draw(st.integers(1, 16)),
        min=least,
        max=draw(st.integers(max(1, least), 20)),
        start_seconds=60,
        spot_percent=draw(st.sampled_from([0, 30, 70, 100])),
    )
    found = [
        Worker(
            f"10.0.0.{number}" if draw(st.booleans()) else None,
            current=draw(st.booleans()),
            starting=draw(st.booleans()),
            spot=draw(st.booleans()),
            sick=draw(st.sampled_from([False, False, False, True])),
        )
        for number in range(draw(st.integers(0, 30)))
    ]
    addresses = [worker.address for worker in found if worker.address]
    running = {address: draw(st.integers(0, queue.slots)) for address in addresses}
    kept = {address for address in addresses if draw(st.booleans())}
    return queue, Load(draw(counts), draw(counts), running), found, kept


@given(world=worlds())
def test_every_decision_is_safe(world: tuple[Queue, Load, list[Worker], set[str]]) -> None:
    queue, load, found, kept = world
    decision = decide(queue, load, found, kept)
    current = [worker for worker in found if worker.current and not worker.sick]
    addresses = {worker.address for worker in found if worker.address and not worker.sick}
    assert queue.min <= decision.wanted <= queue.max
    assert 0 <= decision.start_spot <= decision.start
    assert len(current) + decision.start <= max(queue.max, len(current))
    assert len(found) + decision.start <= max(2 * queue.max, len(found))
    assert set(decision.keep) | set(decision.closing) <= addresses
    assert not set(decision.keep) & set(decision.closing)
    assert {worker.address for worker in current}.isdisjoint(decision.closing)
    # Enough slots stay for all that waits and runs, unless the bound or the fleet is smaller.
    if len(current) >= decision.wanted and all(worker.address for worker in current):
        on_kept = sum(load.running[address] for address in decision.keep if address in load.running)
        free = queue.slots * len(decision.keep) - on_kept
        bounded = decision.wanted == queue.max
        assert bounded or free >= min(load.queued + load.expected, queue.slots * decision.wanted - on_kept)


@given(world=worlds())
def test_who_stays_is_stable(world: tuple[Queue, Load, list[Worker], set[str]]) -> None:
    queue, load, found, kept = world
    first = decide(queue, load, found, kept)
    assert decide(queue, load, found, first.keep).keep == first.keep


@pytest.mark.parametrize(
    ("queued", "expected", "running", "start"),
    [(0, 0, [], 1), (8, 0, [0], 0), (12, 0, [0], 1), (0, 20, [0], 2), (11, 0, [8], 2), (500, 0, [0], 3)],
)
def test_slots_cover_what_waits_what_runs_and_what_is_to_come(
    queued: int, expected: int, running: list[int], start: int
) -> None:
    found, hosts = workers(running)
    assert decide(QUEUE, Load(queued, expected, hosts), found, ()).start == start


def test_emptiest_workers_are_given_up_and_the_busiest_stay() -> None:
    found, hosts = workers([1, 7, 0, 3])
    decision = decide(QUEUE, Load(0, 0, hosts), found, [worker.address or "" for worker in found])
    assert decision.wanted == 2
    assert decision.keep == ("10.0.0.1", "10.0.0.3")


def test_workers_of_an_older_revision_work_until_their_successors_are_up() -> None:
    old, hosts = workers([4, 4], current=False)
    young = [Worker("10.0.0.9", current=True, starting=True), Worker(None, current=True, starting=True)]
    load = Load(12, 0, hosts)
    waiting = decide(QUEUE, load, [*old, *young], ())
    assert set(waiting.keep) >= {"10.0.0.0", "10.0.0.1"}
    assert waiting.closing == ()
    risen = [Worker(f"10.0.1.{number}", current=True, starting=False) for number in range(2)]
    assert decide(QUEUE, load, [*old, *risen], waiting.keep).closing == ("10.0.0.0", "10.0.0.1")


def test_long_tasks_on_an_older_revision_leave_room_for_successors() -> None:
    old, hosts = workers([8, 8, 8, 8], current=False)
    assert decide(QUEUE, Load(32, 0, hosts), old, ()).start == 4


def test_few_tasks_that_wait_briefly_start_no_worker_of_their_own() -> None:
    found, hosts = workers([8])
    for queued, seconds, start in ((2, 29, 0), (2, 31, 1), (3, 0, 1), (10, 0, 1), (11, 0, 2)):
        load = Load(queued, 0, hosts, oldest_queued_seconds=seconds)
        assert decide(QUEUE, load, found, ()).start == start, (queued, seconds)
    empty = Queue("default", FAMILY, slots=8, min=0, max=4, start_seconds=60)
    assert decide(empty, Load(1, 0), (), ()).start == 1


def test_sick_worker_is_replaced() -> None:
    hung = Worker("10.0.0.0", current=True, starting=False, sick=True)
    decision = decide(QUEUE, Load(4, 0, {"10.0.0.0": 3}), [hung], ["10.0.0.0"])
    assert (decision.start, decision.keep) == (1, ())
    # Those that are replaced count with the others: no failing image fills the account.
    assert decide(QUEUE, Load(500), [hung] * 8, ()).start == 0


def test_sick_worker_takes_no_place_of_a_successor() -> None:
    old, hosts = workers([4], current=False)
    hung = Worker("10.0.0.9", current=True, starting=False, sick=True)
    assert decide(QUEUE, Load(0, 0, hosts), [*old, hung], ()).keep == ("10.0.0.0",)


def test_reason_tells_the_sum_and_the_bound() -> None:
    found, hosts = workers([8, 8, 8, 8])
    reason = decide(QUEUE, Load(100, 3, hosts), found, ()).reason
    assert reason == "(100 queued + 32 running + 3 expected) / 8 slots = 17, held at max 4; 4 live: enough"


@given(started=st.lists(st.integers(1, 9), max_size=8), percent=st.integers(0, 100))
def test_share_of_spot_is_kept_over_many_starts(started: list[int], percent: int) -> None:
    queue = Queue("q", FAMILY, slots=1, min=0, max=100, start_seconds=60, spot_percent=percent)
    found: list[Worker] = []
    for count in started:
        decision = decide(queue, Load(len(found) + count), found, ())
        found += [
            Worker(
                f"10.0.{len(found) + number}.0",
                current=True,
                starting=False,
                spot=number < decision.start_spot,
            )
            for number in range(decision.start)
        ]
        assert abs(sum(worker.spot for worker in found) - len(found) * percent / 100) <= 1


class Ecs:
    """Answers RunTask, ListTasks and DescribeTasks from a list of tasks."""

    def __init__(self, failures: dict[str, list[dict[str, str]]] | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failures = failures or {}
        self.tasks: list[dict[str, Any]] = []
        self.listed: list[str] = []

    def run_task(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        provider = request["capacityProviderStrategy"][0]["capacityProvider"]
        if provider in self.failures:
            return {"tasks": [], "failures": self.failures[provider]}
        arns = [f"arn/{len(self.asked)}-{number}" for number in range(request["count"])]
        return {"tasks": [{"taskArn": arn} for arn in arns], "failures": []}

    def get_paginator(self, _name: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [{"taskArns": self.listed}])

    def describe_tasks(self, *, tasks: list[str], **_: Any) -> dict[str, Any]:
        return {"tasks": [task for task in self.tasks if task["taskArn"] in tasks]}

    def describe_task_definition(self, **_: Any) -> dict[str, Any]:
        return {"taskDefinition": {"taskDefinitionArn": f"{FAMILY}:2"}}


def to_start(count: int, spot: int = 0) -> Decision:
    return Decision(wanted=count, start=count, start_spot=spot, keep=(), closing=(), reason="")


def launcher(ecs: Ecs) -> Launcher:
    return Launcher(ecs, "updraft-test", Network(["subnet-1"], ["sg-1"], "DISABLED"))


def test_many_workers_are_started_in_calls_of_ten() -> None:
    ecs = Ecs()
    assert launcher(ecs).start(QUEUE, to_start(23), NOW) == 23
    assert [request["count"] for request in ecs.asked] == [10, 10, 3]
    # boto3 makes one for each call: two samples of a kind must not share one.
    assert not any("clientToken" in request for request in ecs.asked)


def test_what_spot_has_no_room_for_is_started_on_demand() -> None:
    ecs = Ecs({"FARGATE_SPOT": [{"reason": "Capacity is unavailable at this time"}]})
    assert launcher(ecs).start(QUEUE, to_start(3, spot=3), NOW) == 3
    assert [item["capacityProviderStrategy"][0]["capacityProvider"] for item in ecs.asked] == [
        "FARGATE_SPOT",
        "FARGATE",
    ]


def test_worker_that_ecs_does_not_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ECS started 0 of 1 workers: CAPACITY"):
        launcher(Ecs({"FARGATE": [{"reason": "CAPACITY"}]})).start(QUEUE, to_start(1), NOW)


def test_worker_that_ecs_does_not_list_yet_is_counted() -> None:
    ecs = Ecs()
    one = launcher(ecs)
    one.start(QUEUE, to_start(1), NOW)
    ecs.tasks = [{"taskArn": "arn/1-0", "taskDefinitionArn": f"{FAMILY}:2", "desiredStatus": "RUNNING"}]
    assert live_workers(ecs, "updraft-test", FAMILY, one.recent(QUEUE, NOW + 10)) == [
        Worker(None, current=True, starting=True)
    ]
    assert one.recent(QUEUE, NOW + fleet.RECENT_SECONDS) == []


def test_live_workers_are_told_apart() -> None:
    ecs = Ecs()
    details = [{"details": [{"name": "privateIPv4Address", "value": "10.0.0.1"}]}]
    ecs.tasks = [
        {"taskArn": "a", "taskDefinitionArn": f"{FAMILY}:1", "desiredStatus": "RUNNING", "healthStatus": "HEALTHY", "attachments": details},
        {"taskArn": "b", "taskDefinitionArn": f"{FAMILY}:2", "desiredStatus": "STOPPED"},
        {"taskArn": "c", "taskDefinitionArn": f"{FAMILY}:2", "desiredStatus": "RUNNING", "capacityProviderName": "FARGATE_SPOT"},
        {"taskArn": "d", "taskDefinitionArn": f"{FAMILY}:2", "desiredStatus": "RUNNING", "healthStatus": "UNHEALTHY"},
    ]  # fmt: skip
    ecs.listed = ["a", "b", "c", "d"]
    assert live_workers(ecs, "updraft-test", FAMILY, ()) == [
        Worker("10.0.0.1", current=False, starting=False),
        Worker(None, current=True, starting=True, spot=True),
        Worker(None, current=True, starting=False, sick=True),
    ]


class Ssm:
    """Parameters, and what was written."""

    class exceptions:
        class ParameterNotFound(Exception):
            pass

    def __init__(self, **parameters: str) -> None:
        self.parameters = {"/updraft/test/workers/default": "{}"} | parameters
        self.writes = 0

    def get_parameter(self, *, Name: str) -> dict[str, Any]:
        if Name not in self.parameters:
            raise self.exceptions.ParameterNotFound
        return {"Parameter": {"Value": self.parameters[Name]}}

    def put_parameter(self, *, Name: str, Value: str, **_: Any) -> None:
        self.writes += 1
        self.parameters[Name] = Value


def test_record_is_written_when_it_changes_or_grows_old() -> None:
    ssm = Ssm()
    record = FleetRecord(ssm, "/updraft/test/workers/default")
    assert record.keep == ()
    for now, keep in ((0, ["a"]), (10, ["a"]), (20, ["b"]), (30, ["b"]), (50, ["b"])):
        record.write(keep=keep, closing=(), take_work=True, now=NOW + now)
    assert ssm.writes == 3
    assert json.loads(ssm.parameters["/updraft/test/workers/default"]) == {
        "take_work": True, "keep": ["b"], "closing": [], "written_at": NOW + 50,
    }  # fmt: skip


def test_record_of_the_largest_fleet_fits_a_parameter() -> None:
    ssm = Ssm()
    addresses = [f"10.100.100.{number}" for number in range(100, 200)]
    FleetRecord(ssm, "x").write(keep=addresses, closing=addresses, take_work=True, now=NOW)
    assert len(ssm.parameters["x"]) <= 4096


def sampler(ssm: Ssm, ecs: Any) -> tuple[handler.Sampler, list[dict[str, Any]]]:
    published: list[dict[str, Any]] = []
    cloudwatch = SimpleNamespace(put_metric_data=lambda **request: published.append(request))
    settings = handler.Settings(
        "updraft", "test", "updraft-test", "/updraft/test", Database("", 0, "", "", ""), [QUEUE],
        Network([], [], "DISABLED"),
    )  # fmt: skip
    return handler.Sampler(settings, {"ecs": ecs, "ssm": ssm, "cloudwatch": cloudwatch}), published


class BrokenDatabase:
    def run(self, *_: Any, **__: Any) -> list[Any]:
        raise TimeoutError("canceling statement due to statement timeout")


class EmptyDatabase:
    def run(self, sql: str, **_: Any) -> list[Any]:
        return [["default", "default_pool", "queued", "", 20, 20, 3.5]] if "FROM task_instance" in sql else []


def test_failed_sample_changes_nothing() -> None:
    ssm, ecs = Ssm(), Ecs()
    one, _ = sampler(ssm, ecs)
    with pytest.raises(TimeoutError):
        one.sample(BrokenDatabase())
    assert (ecs.asked, ssm.writes, one.samples) == ([], 0, 0)


def test_sample_starts_records_publishes_and_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    ssm, ecs = Ssm(), Ecs()
    one, published = sampler(ssm, ecs)
    one.sample(EmptyDatabase())
    one.publish()
    assert (one.started, one.failures, one.samples) == (3, [], 1)
    told = json.loads(capsys.readouterr().out)["sample"]
    assert told["reason"] == "(20 queued + 0 running + 0 expected) / 8 slots = 3; 0 live: start 3"
    [request] = published
    assert {item["MetricName"]: item["Value"] for item in request["MetricData"]} == {
        "QueuedTasks": 20, "RunningTasks": 0, "ExpectedTasks": 0, "LiveWorkers": 0, "StartingWorkers": 0,
        "Slots": 0, "WantedWorkers": 3,
    }  # fmt: skip
    assert all(item["StorageResolution"] == 1 for item in request["MetricData"])
    assert [item["Name"] for item in request["MetricData"][0]["Dimensions"]] == ["environment", "queue"]


def test_worker_that_was_refused_is_told_with_its_queue(capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = sampler(Ssm(), Ecs({"FARGATE": [{"reason": "You've reached the limit on the number of vCPUs"}]}))
    one.sample(EmptyDatabase())
    [_, told] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told["queue"] == "default"
    assert "the limit on the number of vCPUs" in told["failed_sample"]
    assert len(one.failures) == 1


def test_sleeping_environment_closes_every_worker() -> None:
    ssm = Ssm(**{"/updraft/test/sleep/state": "asleep"})
    one, _ = sampler(ssm, Ecs())
    assert not one.is_awake()
    one.close()
    assert json.loads(ssm.parameters["/updraft/test/workers/default"])["take_work"] is False
    assert sampler(Ssm(), Ecs())[0].is_awake()


class Minute:
    """A Lambda context whose time runs with the pretended clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def get_remaining_time_in_millis(self) -> float:
        return (60 - self.now) * 1000


def test_minute_has_six_samples_and_goes_on_after_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    minute = Minute(monkeypatch)
    one, _ = sampler(Ssm(), Ecs())
    looks: list[float] = []

    def sample(_database: Any) -> None:
        looks.append(minute.now)
        if len(looks) == 2:
            raise ConnectionError("the database went away")

    monkeypatch.setattr(one, "sample", sample)
    connection = SimpleNamespace(__enter__=None, run=lambda *_, **__: [[True]], close=lambda: None)
    monkeypatch.setattr(handler, "read_only", lambda *_: _Context(connection))
    one.clients["rds"] = None
    assert handler.run(one, minute) == "the minute is over"
    assert looks == [0, 10, 20, 30, 40, 50]
    assert one.failures == ["ConnectionError: the database went away"]


class _Context:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __enter__(self) -> Any:
        return self._value

    def __exit__(self, *_: Any) -> None:
        return None


def test_second_sampler_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    minute = Minute(monkeypatch)
    one, _ = sampler(Ssm(), Ecs())
    one.clients["rds"] = None
    monkeypatch.setattr(
        handler, "read_only", lambda *_: _Context(SimpleNamespace(run=lambda *_, **__: [[False]]))
    )
    assert handler.run(one, minute) == "another invocation is sampling"
    assert (one.samples, minute.now) == (0, 0.0)


@pytest.mark.parametrize("allowed", [True, False])
def test_workers_take_commands_only_where_the_environment_says_so(allowed: bool) -> None:
    ecs = Ecs()
    network = Network(["subnet-1"], ["sg-1"], "DISABLED")
    Launcher(ecs, "updraft-test", network, execute_command=allowed).start(QUEUE, to_start(1), NOW)
    assert [request["enableExecuteCommand"] for request in ecs.asked] == [allowed]


def test_workers_on_instances_start_with_the_provider_of_their_queue() -> None:
    ecs = Ecs()
    launcher(ecs).start(replace(QUEUE, capacity_provider="hosts"), to_start(2), NOW)
    assert [request["capacityProviderStrategy"] for request in ecs.asked] == [
        [{"capacityProvider": "hosts", "weight": 1}]
    ]

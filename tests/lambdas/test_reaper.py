"""What has no living owner is stopped, and nothing else ever is."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambdas.reaper import actions, handler
from lambdas.reaper.logic import (
    SERVES,
    Endpoint,
    Job,
    Owner,
    idle_pools,
    is_abandoned,
    orphans,
    owner_of,
    suspects,
)
from runtime.sagemaker import endpoints as operator_endpoints
from runtime.settings import tags as operator_tags

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=60)
# How fast examples come says how busy the machine is, and nothing about them.
WORLDS = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OWNERS = [
    Owner(dag, run, task, index) for dag in "ab" for run in "rs" for task in "tu" for index in ("-1", "3")
]


@st.composite
def owners_tags(draw: st.DrawFn) -> dict[str, str]:
    """Tags of this environment, of another one, or of somebody who tags as they like."""
    owner = draw(st.sampled_from(OWNERS))
    tags = {
        "updraft:project": draw(st.sampled_from(["updraft", "other"])),
        "updraft:environment": draw(st.sampled_from(["test", "test", "prod"])),
        "updraft:dag": owner.dag_id,
        "updraft:run": owner.run_id,
        "updraft:task": owner.task_id,
        "updraft:map-index": owner.map_index,
        "updraft:job-number": draw(st.sampled_from(["1", "2", "3", "many"])),
    }
    for key in draw(st.sets(st.sampled_from(sorted(tags)), max_size=2)):
        del tags[key]
    return tags


@st.composite
def tagged_jobs(draw: st.DrawFn) -> Job:
    tags = draw(owners_tags())
    name = f"updraft-test-{draw(st.integers(0, 10**9))}"
    age = timedelta(seconds=draw(st.integers(-5, 600)))
    kind = draw(st.sampled_from(sorted(actions.KINDS)))
    return Job(kind, name, f"arn:{name}", NOW - age, tags)


@WORLDS
@given(jobs=st.lists(tagged_jobs(), max_size=12), living=st.sets(st.sampled_from(OWNERS)))
def test_orphans_are_exactly_ours_past_grace_without_a_waiting_owner(
    jobs: list[Job], living: set[Owner]
) -> None:
    found = orphans(jobs, living, project="updraft", environment="test", now=NOW, grace=GRACE)
    stopped = [orphan.job for orphan in found]
    for job in jobs:
        owner = job.owner(project="updraft", environment="test")
        ours = {"updraft:project": "updraft", "updraft:environment": "test"}.items() <= job.tags.items()
        named = {"updraft:dag", "updraft:run", "updraft:task"} <= set(job.tags)
        assert (owner is not None) == (ours and named)
        later = [
            other
            for other in jobs
            if other.owner(project="updraft", environment="test") == owner
            and other.kind == job.kind
            and other.number > job.number
        ]
        expected = (
            owner is not None and NOW - job.created_at >= GRACE and (owner not in living or bool(later))
        )
        assert (job in stopped) == expected


@st.composite
def tagged_endpoints(draw: st.DrawFn) -> Endpoint:
    tags = draw(owners_tags())
    if draw(st.booleans()):
        tags[SERVES] = draw(st.sampled_from(["old", "new"]))
    name = f"updraft-test-{draw(st.integers(0, 10**9))}"
    status = draw(
        st.sampled_from(["Creating", "Updating", "InService", "Failed", "OutOfService", "Deleting"])
    )
    age = timedelta(seconds=draw(st.integers(-5, 600)))
    return Endpoint(name, f"arn:{name}", status, draw(st.sampled_from(["old", "new"])), NOW - age, tags)


RULE: dict[str, Any] = {"project": "updraft", "environment": "test"}


@WORLDS
@given(endpoints=st.lists(tagged_endpoints(), max_size=5), living=st.sets(st.sampled_from(OWNERS)))
def test_suspects_are_exactly_ours_that_differ_from_what_was_complete(
    endpoints: list[Endpoint], living: set[Owner]
) -> None:
    found = suspects(endpoints, living, **RULE, now=NOW, grace=GRACE)
    for endpoint in endpoints:
        ours = {"updraft:project": "updraft", "updraft:environment": "test"}.items() <= endpoint.tags.items()
        named = {"updraft:dag", "updraft:run", "updraft:task"} <= set(endpoint.tags)
        owned = owner_of(endpoint.tags, **RULE) in living
        old_enough = NOW - endpoint.changed_at >= GRACE
        complete = endpoint.tags.get(SERVES) == endpoint.config
        kept = SERVES in endpoint.tags
        can_change = endpoint.status == "InService" or (
            endpoint.status in ("Failed", "OutOfService") and not kept
        )
        expected = ours and named and not owned and old_enough and not complete and can_change
        assert (endpoint in found) == expected
        assert not expected or endpoint.way_out == ("roll back" if kept else "delete")


@WORLDS
@given(before=tagged_endpoints(), after=st.none() | tagged_endpoints(), same=st.booleans())
def test_what_changed_in_between_is_left_alone(before: Endpoint, after: Endpoint | None, same: bool) -> None:
    if same:
        after = before
    if not is_abandoned(before, after, **RULE):
        assert after != before
        return
    assert after is not None
    assert (after.way_out, after.changed_at) == (before.way_out, before.changed_at)
    assert owner_of(after.tags, **RULE) == owner_of(before.tags, **RULE)


@WORLDS
@given(pools=st.lists(tagged_jobs(), max_size=5), living=st.sets(st.sampled_from(OWNERS)))
def test_pools_end_when_nothing_of_their_run_lives(pools: list[Job], living: set[Owner]) -> None:
    found = idle_pools(pools, living, **RULE, now=NOW, grace=GRACE)
    for pool in pools:
        owner = pool.owner(**RULE)
        neighbours = [each for each in living if owner is not None and each[:2] == owner[:2]]
        expected = owner is not None and not neighbours and NOW - pool.created_at >= GRACE
        assert (pool in found) == expected


def test_operator_and_reaper_mean_the_same_tag() -> None:
    assert operator_endpoints.SERVES == SERVES


@given(
    parts=st.tuples(
        *[st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=300)] * 3
    ),
    index=st.integers(-1, 9),
)
def test_owner_is_found_again_by_the_operators_tags(parts: tuple[str, str, str], index: int) -> None:
    class Instance:
        dag_id, run_id, task_id = parts
        map_index, bundle_version = index, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPDRAFT_PROJECT", "updraft")
        patch.setenv("UPDRAFT_ENVIRONMENT", "test")
        values = {tag["Key"]: tag["Value"] for tag in operator_tags({"ti": Instance})}
    job = Job("training", "n", "arn", NOW, values)
    assert job.owner(project="updraft", environment="test") == Owner.of_task(*parts, index)


class FakeSageMaker:
    """Lists what it has, and remembers what it was told to do. `later` replaces endpoints after they were listed."""

    def __init__(self, jobs: list[Job], endpoints: list[Endpoint], pools: list[Job]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.pools = {job.name: job for job in pools}
        self.notebooks: list[dict[str, Any]] = []
        self.later: dict[str, Endpoint | None] = {}
        self.stopped: list[str] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.tagged: dict[str, list[dict[str, str]]] = {}
        self.throttled: set[str] = set()

    def get_paginator(self, operation: str) -> Any:
        return type("Pages", (), {"paginate": staticmethod(lambda **asked: [self._page(operation, **asked)])})

    def _page(self, operation: str, **asked: str) -> dict[str, Any]:
        if operation == "list_tags":
            tagged: list[Job | Endpoint] = [
                *self.jobs.values(),
                *self.endpoints.values(),
                *self.pools.values(),
            ]
            tags = {each.arn: each.tags for each in tagged}
            tags |= {each["NotebookInstanceArn"]: each["tags"] for each in self.notebooks}
            found = tags[asked["ResourceArn"]]
            self._pass_time(asked["ResourceArn"].removeprefix("arn:"))
            return {"Tags": [{"Key": key, "Value": value} for key, value in found.items()]}
        if operation == "list_endpoints":
            return {"Endpoints": [{"EndpointName": name} for name in self.endpoints]}
        if operation == "list_notebook_instances":
            return {"NotebookInstances": self.notebooks}
        [(kind, words)] = [(k, w) for k, (noun, w) in actions.KINDS.items() if operation == f"list_{noun}s"]
        jobs = self.pools if "WarmPoolStatusEquals" in asked else self.jobs
        return {
            f"{words}Summaries": [
                {f"{words}Name": job.name, f"{words}Arn": job.arn, "CreationTime": job.created_at}
                for job in jobs.values()
                if job.kind == kind and asked["NameContains"] in job.name
            ]
        }

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        found = self.endpoints.get(EndpointName)
        if found is None:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "not found"}}, "Describe")
        return {
            "EndpointName": EndpointName,
            "EndpointArn": found.arn,
            "EndpointStatus": found.status,
            "EndpointConfigName": found.config,
            "LastModifiedTime": found.changed_at,
        }

    def _pass_time(self, name: str) -> None:
        """An endpoint that was read once is another one when it is read again."""
        if name in self.later:
            replaced = self.later.pop(name)
            del self.endpoints[name]
            if replaced is not None:
                self.endpoints[name] = replaced

    def _throttle(self, what: str) -> None:
        if what in self.throttled:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, what)

    def stop_training_job(self, TrainingJobName: str) -> None:
        self._throttle(TrainingJobName)
        self.stopped.append(TrainingJobName)

    def add_tags(self, ResourceArn: str, Tags: list[dict[str, str]]) -> None:
        self._throttle(ResourceArn)
        self.tagged[ResourceArn] = Tags

    def __getattr__(self, name: str) -> Any:
        changes = ("update_training_job", "stop_notebook_instance", "update_endpoint", "delete_endpoint")
        if name not in (*changes, "delete_endpoint_config"):
            raise AttributeError(name)
        self._throttle(name)
        return lambda **asked: self.calls.append((name, asked))


def job(name: str, run: str, **changes: str) -> Job:
    tags = {
        "updraft:project": "updraft", "updraft:environment": "test", "updraft:dag": "d", "updraft:run": run,
        "updraft:task": "t",
    }  # fmt: skip
    return Job("training", name, f"arn:{name}", datetime(2020, 1, 1, tzinfo=UTC), tags | changes)


class Reap:
    """Runs the handler against jobs, with one living owner; `sagemaker` was met last, `told` is what it told then."""

    sagemaker: FakeSageMaker
    told: list[dict[str, str]]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(
        self,
        jobs: list[Job],
        *,
        event: dict[str, Any] | None = None,
        database: bool = True,
        endpoints: list[Endpoint] | None = None,
        pools: list[Job] | None = None,
        change: Callable[[FakeSageMaker], None] = lambda _: None,
    ) -> tuple[dict[str, Any], FakeSageMaker, list[dict[str, str]]]:
        """Its answer, SageMaker, and what SNS was told."""
        told: list[dict[str, str]] = []
        self.sagemaker = FakeSageMaker(jobs, endpoints or [], pools or [])
        change(self.sagemaker)
        sns = type("Sns", (), {"publish": staticmethod(lambda **asked: told.append(asked))})
        clients = {"sagemaker": self.sagemaker, "sns": sns, "rds": None}
        self.told = told
        self._monkeypatch.setattr(boto3, "client", lambda name, **_: clients[name])

        @contextmanager
        def connection(*_: Any) -> Iterator[Any]:
            if not database:
                raise ConnectionError("the database is asleep")
            yield type("Database", (), {"run": staticmethod(lambda _sql: [["d", "living", "t", -1]])})

        self._monkeypatch.setattr(handler, "read_only", connection)
        return handler.handler(event or {}, None), self.sagemaker, told


@pytest.fixture
def reap(monkeypatch: pytest.MonkeyPatch) -> Reap:
    for name, value in {
        "UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "test", "UPDRAFT_TOPIC_ARN": "arn:topic",
        "UPDRAFT_GRACE_SECONDS": "60", "UPDRAFT_NOTEBOOK_HOURS": "12", "UPDRAFT_DRY_RUN": "false", "UPDRAFT_DATABASE_HOST": "localhost",
        "UPDRAFT_DATABASE_PORT": "1", "UPDRAFT_DATABASE_NAME": "airflow", "UPDRAFT_DATABASE_USER": "reader",
        "UPDRAFT_DATABASE_CA_BUNDLE": "ca.pem",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return Reap(monkeypatch)


def test_orphan_is_stopped_told_and_labelled(reap: Reap) -> None:
    answer, sagemaker, told = reap([job("updraft-test-a", "gone"), job("updraft-test-b", "living")])
    assert answer == {"running": 2, "stopped": ["updraft-test-a"], "dry_run": False}
    assert sagemaker.stopped == ["updraft-test-a"]
    assert {"Key": "updraft:stopped-by", "Value": "reaper"} in sagemaker.tagged["arn:updraft-test-a"]
    [note] = told
    assert re.search(r"updraft-test-a was told to stop: its task instance no longer waits", note["Message"])


@pytest.mark.parametrize(
    ("throttled", "stopped"),
    [
        ("updraft-test-a", ["updraft-test-b"]),
        ("arn:updraft-test-a", ["updraft-test-a", "updraft-test-b"]),
        ("stop_notebook_instance", ["updraft-test-a", "updraft-test-b"]),
    ],
    ids=["its stop", "its label", "a notebook's stop"],
)
def test_one_that_is_refused_keeps_no_other_from_its_end(
    reap: Reap, throttled: str, stopped: list[str]
) -> None:
    def change(sagemaker: FakeSageMaker) -> None:
        sagemaker.throttled = {throttled}
        sagemaker.notebooks = [notebook("updraft-test-notebook", 13)]

    with pytest.raises(ExceptionGroup, match="did not end 1 of the resources") as caught:
        reap([job("updraft-test-a", "gone"), job("updraft-test-b", "gone")], change=change)
    assert "ThrottlingException" in str(caught.value.exceptions[0])
    assert reap.sagemaker.stopped == stopped
    [note] = reap.told
    assert re.findall(r"job (\S+) was told to stop", note["Message"]) == stopped


def test_dry_run_only_tells(reap: Reap) -> None:
    answer, sagemaker, told = reap([job("updraft-test-a", "gone")], event={"dry_run": True})
    assert (answer["stopped"], sagemaker.stopped, len(told)) == (["updraft-test-a"], [], 1)
    assert "would be stopped" in told[0]["Message"]


def test_unreadable_database_stops_nothing_and_is_an_error(reap: Reap) -> None:
    with pytest.raises(ConnectionError, match="asleep"):
        reap([job("updraft-test-a", "gone")], database=False)
    assert reap.sagemaker.stopped == []


def test_nothing_running_asks_no_database(reap: Reap) -> None:
    answer, _, told = reap([], database=False)
    assert (answer["running"], told) == (0, [])


def test_untagged_and_foreign_jobs_are_never_touched(reap: Reap) -> None:
    foreign = job("updraft-test-c", "gone", **{"updraft:environment": "prod"})
    untagged = Job("training", "updraft-test-d", "arn:d", datetime(2020, 1, 1, tzinfo=UTC), {})
    other_name = job("somebody-updraft-test-e", "gone")
    _, sagemaker, told = reap([foreign, untagged, other_name])
    assert (sagemaker.stopped, told) == ([], [])


def test_message_names_every_job_and_its_task() -> None:
    found = orphans([job("n", "gone")], set(), project="updraft", environment="test", now=NOW, grace=GRACE)
    assert actions.message([actions.stop(each) for each in found], dry_run=False) == (
        "training job n was told to stop: its task instance no longer waits for it (d / gone / t / -1)"
    )


def endpoint(name: str, run: str, **changes: Any) -> Endpoint:
    tags = dict(job(name, run).tags) | changes.pop("tags", {})
    values: dict[str, Any] = {
        "status": "InService",
        "config": "new",
        "changed_at": datetime(2020, 1, 1, tzinfo=UTC),
    }
    return Endpoint(name=name, arn=f"arn:{name}", tags=tags, **values | changes)


def test_endpoint_of_a_lost_first_deployment_is_deleted_with_its_configuration(reap: Reap) -> None:
    found = [endpoint("updraft-test-a", "gone"), endpoint("updraft-test-b", "living")]
    answer, sagemaker, told = reap([], endpoints=found)
    assert sagemaker.calls == [
        ("delete_endpoint", {"EndpointName": "updraft-test-a"}),
        ("delete_endpoint_config", {"EndpointConfigName": "new"}),
    ]
    assert answer["stopped"] == ["updraft-test-a"]
    assert told[0]["Message"] == (
        "endpoint updraft-test-a was deleted: its task is gone, and its deployment was never complete "
        "(d / gone / t / -1)"
    )


def test_lost_update_goes_back_to_what_was_complete(reap: Reap) -> None:
    _, sagemaker, told = reap([], endpoints=[endpoint("updraft-test-a", "gone", tags={SERVES: "old"})])
    request = {"EndpointName": "updraft-test-a", "EndpointConfigName": "old"}
    assert sagemaker.calls == [("update_endpoint", request)]
    assert "endpoint updraft-test-a goes back to old" in told[0]["Message"]
    assert {"Key": "updraft:stopped-by", "Value": "reaper"} in sagemaker.tagged["arn:updraft-test-a"]


def test_complete_deployment_lives_on_without_its_task_and_without_the_database(reap: Reap) -> None:
    found = [endpoint("updraft-test-a", "gone", tags={SERVES: "new"})]
    _, sagemaker, told = reap([], endpoints=found, database=False)
    assert (sagemaker.calls, told) == ([], [])


@pytest.mark.parametrize(
    "later",
    [
        None,
        endpoint("updraft-test-a", "gone", tags={SERVES: "new"}),
        endpoint("updraft-test-a", "later"),
        endpoint("updraft-test-a", "gone", status="Updating"),
    ],
    ids=["gone", "complete", "another task's", "on its way"],
)
def test_deployment_that_ended_well_in_between_is_left_alone(reap: Reap, later: Endpoint | None) -> None:
    def change(sagemaker: FakeSageMaker) -> None:
        sagemaker.later["updraft-test-a"] = later

    _, sagemaker, told = reap([], endpoints=[endpoint("updraft-test-a", "gone")], change=change)
    assert (sagemaker.calls, told) == ([], [])


def test_endpoints_of_others_are_never_touched(reap: Reap) -> None:
    others = [
        endpoint("updraft-test-a", "gone", tags={"updraft:environment": "prod"}),
        Endpoint("updraft-test-b", "arn:b", "InService", "c", datetime(2020, 1, 1, tzinfo=UTC), {}),
        endpoint("somebody-updraft-test-c", "gone"),
    ]
    _, sagemaker, told = reap([], endpoints=others)
    assert (sagemaker.calls, told) == ([], [])


def test_warm_pool_of_a_run_that_is_over_is_ended(reap: Reap) -> None:
    pools = [job("updraft-test-a", "gone"), job("updraft-test-b", "living", **{"updraft:task": "other"})]
    _, sagemaker, told = reap([], pools=pools)
    resources = {"KeepAlivePeriodInSeconds": 0}
    request = {"TrainingJobName": "updraft-test-a", "ResourceConfig": resources}
    assert sagemaker.calls == [("update_training_job", request)]
    assert "warm pool of training job updraft-test-a was ended" in told[0]["Message"]


def notebook(name: str, hours: float, **tags: str) -> dict[str, Any]:
    ours = {"updraft:project": "updraft", "updraft:environment": "test"}
    return {
        "NotebookInstanceName": name,
        "NotebookInstanceArn": f"arn:{name}",
        "LastModifiedTime": datetime.now(UTC) - timedelta(hours=hours),
        "tags": ours | tags,
    }


def test_notebook_that_runs_too_long_is_stopped_even_while_the_database_sleeps(reap: Reap) -> None:
    def change(sagemaker: FakeSageMaker) -> None:
        sagemaker.notebooks = [
            notebook("updraft-test-notebook", 13),
            notebook("updraft-test-young", 11),
            notebook("updraft-test-foreign", 13, **{"updraft:project": "other"}),
        ]

    answer, sagemaker, told = reap([], change=change, database=False)
    assert sagemaker.calls == [("stop_notebook_instance", {"NotebookInstanceName": "updraft-test-notebook"})]
    assert answer["stopped"] == ["updraft-test-notebook"]
    assert "running for more than 12 hours" in told[0]["Message"]
    with pytest.raises(ConnectionError):
        reap([job("updraft-test-a", "gone")], change=change, database=False)
    assert [name for name, _ in reap.sagemaker.calls] == ["stop_notebook_instance"]


def test_dry_run_touches_no_endpoint_pool_or_notebook(reap: Reap) -> None:
    def change(sagemaker: FakeSageMaker) -> None:
        sagemaker.notebooks = [notebook("updraft-test-notebook", 13)]

    _, sagemaker, told = reap(
        [],
        event={"dry_run": True},
        endpoints=[endpoint("updraft-test-a", "gone")],
        pools=[job("updraft-test-b", "gone")],
        change=change,
    )
    assert (sagemaker.calls, told[0]["Message"].count("would be")) == ([], 3)

"""What has no living owner is stopped, and nothing else ever is."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.reaper import handler, logic
from lambdas.reaper.logic import Job, Owner, orphans
from runtime.settings import tags as operator_tags

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=60)
OWNERS = [
    Owner(dag, run, task, index) for dag in "ab" for run in "rs" for task in "tu" for index in ("-1", "3")
]


@st.composite
def tagged_jobs(draw: st.DrawFn) -> Job:
    """A job of this environment, of another one, or of somebody who tags as they like."""
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
    name = f"updraft-test-{draw(st.integers(0, 10**9))}"
    age = timedelta(seconds=draw(st.integers(-5, 600)))
    kind = draw(st.sampled_from(sorted(handler.KINDS)))
    return Job(kind, name, f"arn:{name}", NOW - age, tags)


@settings(max_examples=500)
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
    """Lists its jobs, and remembers what it was told to stop."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.stopped: list[str] = []
        self.tagged: dict[str, list[dict[str, str]]] = {}

    def get_paginator(self, operation: str) -> Any:
        return type("Pages", (), {"paginate": staticmethod(lambda **asked: [self._page(operation, **asked)])})

    def _page(self, operation: str, **asked: str) -> dict[str, Any]:
        if operation == "list_tags":
            [job] = [job for job in self.jobs.values() if job.arn == asked["ResourceArn"]]
            return {"Tags": [{"Key": key, "Value": value} for key, value in job.tags.items()]}
        [(kind, words)] = [(k, w) for k, (noun, w) in handler.KINDS.items() if operation == f"list_{noun}s"]
        return {
            f"{words}Summaries": [
                {f"{words}Name": job.name, f"{words}Arn": job.arn, "CreationTime": job.created_at}
                for job in self.jobs.values()
                if job.kind == kind and asked["NameContains"] in job.name
            ]
        }

    def stop_training_job(self, TrainingJobName: str) -> None:
        self.stopped.append(TrainingJobName)

    def add_tags(self, ResourceArn: str, Tags: list[dict[str, str]]) -> None:
        self.tagged[ResourceArn] = Tags


def job(name: str, run: str, **changes: str) -> Job:
    tags = {
        "updraft:project": "updraft", "updraft:environment": "test", "updraft:dag": "d", "updraft:run": run,
        "updraft:task": "t",
    }  # fmt: skip
    return Job("training", name, f"arn:{name}", datetime(2020, 1, 1, tzinfo=UTC), tags | changes)


Reap = Callable[..., tuple[dict[str, Any], FakeSageMaker, list[dict[str, str]]]]


@pytest.fixture
def reap(monkeypatch: pytest.MonkeyPatch) -> Reap:
    """Runs the handler against jobs, with one living owner; returns its answer, SageMaker, and what SNS was told."""
    for name, value in {
        "UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "test", "UPDRAFT_TOPIC_ARN": "arn:topic",
        "UPDRAFT_GRACE_SECONDS": "60", "UPDRAFT_DRY_RUN": "false", "UPDRAFT_DATABASE_HOST": "localhost",
        "UPDRAFT_DATABASE_PORT": "1", "UPDRAFT_DATABASE_NAME": "airflow", "UPDRAFT_DATABASE_USER": "reader",
        "UPDRAFT_DATABASE_CA_BUNDLE": "ca.pem",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def run(jobs: list[Job], *, event: dict[str, Any] | None = None, database: bool = True) -> Any:
        sagemaker, told = FakeSageMaker(jobs), []
        sns = type("Sns", (), {"publish": staticmethod(lambda **asked: told.append(asked))})
        clients = {"sagemaker": sagemaker, "sns": sns, "rds": None}
        monkeypatch.setattr(boto3, "client", lambda name: clients[name])

        @contextmanager
        def connection(*_: Any) -> Iterator[Any]:
            if not database:
                raise ConnectionError("the database is asleep")
            yield type("Database", (), {"run": staticmethod(lambda _sql: [["d", "living", "t", -1]])})

        monkeypatch.setattr(handler, "read_only", connection)
        run.sagemaker = sagemaker  # type: ignore[attr-defined]
        return handler.handler(event or {}, None), sagemaker, told

    return run


def test_orphan_is_stopped_told_and_labelled(reap: Reap) -> None:
    answer, sagemaker, told = reap([job("updraft-test-a", "gone"), job("updraft-test-b", "living")])
    assert answer == {"running": 2, "stopped": ["updraft-test-a"], "dry_run": False}
    assert sagemaker.stopped == ["updraft-test-a"]
    assert {"Key": "updraft:stopped-by", "Value": "reaper"} in sagemaker.tagged["arn:updraft-test-a"]
    [note] = told
    assert re.search(r"updraft-test-a was told to stop: its task instance no longer waits", note["Message"])


def test_dry_run_only_tells(reap: Reap) -> None:
    answer, sagemaker, told = reap([job("updraft-test-a", "gone")], event={"dry_run": True})
    assert (answer["stopped"], sagemaker.stopped, len(told)) == (["updraft-test-a"], [], 1)
    assert "would be stopped" in told[0]["Message"]


def test_unreadable_database_stops_nothing_and_is_an_error(reap: Reap) -> None:
    with pytest.raises(ConnectionError, match="asleep"):
        reap([job("updraft-test-a", "gone")], database=False)
    assert reap.sagemaker.stopped == []  # type: ignore[attr-defined]


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
    assert logic.message(found, dry_run=False) == (
        "training job n was told to stop: its task instance no longer waits for it (d / gone / t / -1)"
    )

"""What people are told of a failed run."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runtime import notify
from tests.runtime.test_settings import PARAMETER, VALUES

BASE_URL = "http://localhost:8080/"
TASKS = ("ingest.extract", "ingest.check", "ingest.check_2", "publish.load", "trial.train")
RUN_ID = "manual__2026-11-21T10:00:00+00:00"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "UPDRAFT_PROJECT": "updraft",
        "UPDRAFT_ENVIRONMENT": "test",
        "UPDRAFT_SSM_PREFIX": "/updraft/test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(notify, "_base_url", lambda: BASE_URL)


@pytest.fixture
def messages() -> Iterator[Any]:
    """A topic with a queue behind it; calling it gives the messages that came."""
    with mock_aws():
        topic = boto3.client("sns").create_topic(Name="failures")["TopicArn"]
        sqs = boto3.client("sqs")
        queue = sqs.create_queue(QueueName="q")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        boto3.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        values = VALUES | {"failures_topic_arn": topic}
        boto3.client("ssm").put_parameter(Name=PARAMETER, Type="String", Value=json.dumps(values))
        yield lambda: [
            json.loads(message["Body"]) for message in sqs.receive_message(QueueUrl=queue).get("Messages", [])
        ]


def context(states: Any) -> dict[str, Any]:
    """As the dag-processor makes it; `states` are the tasks', or an error that asking for them raises."""

    def get_task_states(*, dag_id: str, run_ids: list[str]) -> dict[str, Any]:
        if isinstance(states, Exception):
            raise states
        assert dag_id == "insurance_etl"
        return dict.fromkeys(run_ids, states)

    return {
        "dag": SimpleNamespace(dag_id="insurance_etl", has_task=TASKS.__contains__),
        "run_id": RUN_ID,
        "reason": "task_failure",
        "ti": SimpleNamespace(
            dag_id="insurance_etl", task_id="ingest.check", get_task_states=get_task_states
        ),
    }


def test_message_says_what_failed_and_where_to_look(messages: Any) -> None:
    notify.notify_failure(
        context({"ingest.extract": "success", "ingest.check": "failed", "publish.load": "upstream_failed"})
    )
    [message] = messages()
    assert message["Subject"] == "[updraft-test] insurance_etl failed: ingest.check"
    run = "http://localhost:8080/dags/insurance_etl/runs/manual__2026-11-21T10%3A00%3A00%2B00%3A00"
    assert f"failed: ingest.check  {run}/tasks/ingest.check\n" in message["Message"]
    assert "did not run: publish.load\n" in message["Message"]
    assert f"The run: {run}\n" in message["Message"]
    assert "ingest.extract" not in message["Message"]


def test_mapped_task_is_linked_to_the_page_of_its_instance() -> None:
    states = {
        "trial.train_0": "success", "trial.train_11": "failed", "ingest.check_2": "failed", "gone_1": "failed",
    }  # fmt: skip
    _, message = notify.compose(context(states), states=states, base_url=BASE_URL)
    linked = {
        line.split()[1]: line.partition("/tasks/")[2] for line in message.splitlines() if "/tasks/" in line
    }
    assert linked == {
        "trial.train_11": "trial.train/mapped/11", "ingest.check_2": "ingest.check_2", "gone_1": "gone_1",
    }  # fmt: skip


def test_task_of_the_callback_is_named_when_the_others_are_not_known(messages: Any) -> None:
    notify.notify_failure(context(ConnectionError("no supervisor")))
    [message] = messages()
    assert "failed: ingest.check  http" in message["Message"]


def test_run_that_failed_without_a_task_is_told_with_its_reason(messages: Any) -> None:
    notify.notify_failure(
        {"dag": SimpleNamespace(dag_id="insurance_etl"), "run_id": RUN_ID, "reason": "timed_out"}
    )
    [message] = messages()
    assert message["Subject"] == "[updraft-test] insurance_etl failed: timed_out"


def test_subject_is_one_that_sns_takes() -> None:
    states = {f"täsk\n{number}": "failed" for number in range(40)}
    subject, _ = notify.compose(context(states), states=states, base_url=BASE_URL)
    assert len(subject) == 100
    assert subject.isascii()
    assert "\n" not in subject


def test_without_a_topic_nothing_is_published(caplog: pytest.LogCaptureFixture) -> None:
    with mock_aws():
        boto3.client("ssm").put_parameter(Name=PARAMETER, Type="String", Value=json.dumps(VALUES))
        notify.notify_failure(context({}))
    assert "nobody is told" in caplog.text

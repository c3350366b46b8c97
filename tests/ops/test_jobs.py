"""The ledger: what was paid for, by whom, and what is not known."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ops import jobs
from runtime.sagemaker.spend import spent_this_month

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
PRICES = {"ml.g5.xlarge": 3.6}


def training(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name, "TrainingJobArn": f"arn:{name}", "TrainingJobStatus": "Completed",
        "CreationTime": NOW - timedelta(hours=1), "TrainingStartTime": NOW - timedelta(seconds=100),
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        "BillableTimeInSeconds": 100, "TrainingTimeInSeconds": 100,
    } | changes  # fmt: skip


class FakeSageMaker:
    """Trainings, their tags, and no other jobs."""

    def __init__(self, trainings: list[dict[str, Any]], tags: dict[str, str]) -> None:
        self._trainings = {job["TrainingJobName"]: job for job in trainings}
        self._tags = tags
        # Of ARNs that have others, None for one that is gone; and each ARN whose tags were read.
        self.tags_of: dict[str, dict[str, str] | None] = {}
        self.tags_read: list[str] = []
        self.endpoints: list[dict[str, Any]] = []
        # Names of endpoints that are deleted between their list and their description.
        self.deleted: list[str] = []

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:
        return self._trainings[TrainingJobName]

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        found = [each for each in self.endpoints if each["EndpointName"] == EndpointName]
        if not found:
            message = f'Could not find endpoint "{EndpointName}".'
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": message}}, "DescribeEndpoint"
            )
        return found[0]

    def describe_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:
        types = {"InstanceType": EndpointConfigName} if EndpointConfigName.startswith("ml.") else {}
        return {"ProductionVariants": [{"VariantName": "main", **types}]}

    def get_paginator(self, operation: str) -> Any:
        def paginate(**asked: Any) -> list[dict[str, Any]]:
            if operation == "list_tags":
                self.tags_read.append(asked["ResourceArn"])
                tags = self.tags_of.get(asked["ResourceArn"], self._tags)
                if tags is None:
                    message = "Requested resource not found."
                    raise ClientError(
                        {"Error": {"Code": "ValidationException", "Message": message}}, "ListTags"
                    )
                return [{"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
            if operation == "list_endpoints":
                names = [each["EndpointName"] for each in self.endpoints]
                return [{"Endpoints": [{"EndpointName": name} for name in [*names, *self.deleted]]}]
            wanted = [
                job for job in self._trainings.values()
                if operation == "list_training_jobs" and job["CreationTime"] > asked["CreationTimeAfter"]
            ]  # fmt: skip
            return [
                {
                    "TrainingJobSummaries": wanted,
                    "ProcessingJobSummaries": [],
                    "TransformJobSummaries": [],
                }
            ]

        return SimpleNamespace(paginate=paginate)

    def __getattr__(self, name: str) -> Any:
        if name in ("describe_processing_job", "describe_transform_job"):
            return None
        raise AttributeError(name)


def target(sagemaker: FakeSageMaker) -> Any:
    settings = '{"usd_per_hour": {"ml.g5.xlarge": 3.6}, "monthly_budget_usd": 50}'
    ssm = SimpleNamespace(get_parameter=lambda Name: {"Parameter": {"Value": settings}})  # noqa: ARG005
    clients = {"sagemaker": sagemaker, "ssm": ssm}
    return SimpleNamespace(
        client=clients.__getitem__, output=lambda *_: "/updraft/test/workflows", prefix="updraft-test"
    )


def test_ledger_tells_owner_cost_saving_and_who_stopped() -> None:
    tags = {
        "updraft:dag": "flights", "updraft:run": "manual", "updraft:task": "train",
        "updraft:stopped-by": "reaper", "updraft:stop-reason": "no owner",
    }  # fmt: skip
    spot = training(
        "updraft-test-spot",
        BillableTimeInSeconds=300,
        TrainingTimeInSeconds=1000,
        TrainingJobStatus="Stopped",
    )
    result = jobs.ledger(target(FakeSageMaker([spot], tags)), NOW)
    [found] = result["jobs"]
    assert found["dag_run"] == "flights/manual"
    assert (found["task"], found["usd"], found["spot_saving"]) == ("train", 0.3, "70%")
    assert (found["stopped_by"], found["reason"]) == ("reaper", "no owner")
    assert (result["usd"], result["budget_usd"]) == (0.3, 50)
    assert "2026-03: $0.30 of $50" in jobs.readable(result)


def test_label_of_a_stop_that_came_too_late_is_not_shown() -> None:
    tags = {"updraft:stopped-by": "reaper", "updraft:stop-reason": "no owner"}
    [found] = jobs.ledger(target(FakeSageMaker([training("updraft-test-a")], tags)), NOW)["jobs"]
    assert (found["state"], found["stopped_by"], found["reason"]) == ("Completed", None, None)


def test_instance_without_a_price_is_named_and_not_counted() -> None:
    odd = training("updraft-test-odd", ResourceConfig={"InstanceType": "ml.new.large", "InstanceCount": 2})
    result = jobs.ledger(target(FakeSageMaker([odd], {})), NOW)
    assert result["jobs"][0]["usd"] is None
    assert result["jobs"][0]["instance"] == "2 x ml.new.large"
    assert result["without_a_price"] == ["ml.new.large"]
    assert "no price: ml.new.large" in jobs.readable(result)


def test_month_without_jobs_is_said() -> None:
    assert jobs.readable(jobs.ledger(target(FakeSageMaker([], {})), NOW)) == (
        "No SageMaker job in 2026-03, and no endpoint."
    )


def test_months_sum_leaves_out_other_environments_and_older_jobs() -> None:
    sagemaker = FakeSageMaker(
        [
            training("updraft-test-a"),
            training("updraft-testing-b"),
            training("updraft-test-old", CreationTime=NOW - timedelta(days=40)),
        ],
        {},
    )
    spent, unpriced = spent_this_month(sagemaker, prefix="updraft-test", prices=PRICES, now=NOW)
    assert spent == pytest.approx(0.1)
    assert unpriced == []


def test_job_of_last_month_counts_with_what_ran_in_this_one() -> None:
    month = NOW.replace(day=1, hour=0)
    began = {"CreationTime": month - timedelta(days=3), "TrainingStartTime": month - timedelta(hours=3)}
    gone = {"TrainingEndTime": month - timedelta(minutes=10)}
    sagemaker = FakeSageMaker(
        [
            training("updraft-test-over", **began, TrainingEndTime=month + timedelta(hours=1),
                     TrainingTimeInSeconds=4 * 3600, BillableTimeInSeconds=4 * 3600),
            training("updraft-test-gone", **began, **gone),
            training("updraft-test-pool", **began, **gone,
                     WarmPoolStatus={"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 1800}),
            training("updraft-test-never-ran", CreationTime=began["CreationTime"], TrainingJobStatus="Failed"),
        ],
        {},
    )  # fmt: skip
    result = jobs.ledger(target(sagemaker), NOW)
    assert [(each["job"], each["usd"]) for each in result["jobs"]] == [
        ("updraft-test-over", 3.6), ("updraft-test-pool", 1.2),
    ]  # fmt: skip
    spent, _ = spent_this_month(sagemaker, prefix="updraft-test", prices=PRICES, now=NOW)
    assert spent == pytest.approx(4.8)


def test_who_stopped_a_tuning_job_is_told_of_its_trainings() -> None:
    trial: dict[str, Any] = {"TuningJobArn": "arn:tuning", "TrainingJobStatus": "Stopped"}
    trainings = [
        training("updraft-test-1", **trial),
        training("updraft-test-2", **trial),
        training("updraft-test-3", **trial | {"TrainingJobStatus": "Completed"}),
        training("updraft-test-4", **trial | {"TuningJobArn": "arn:deleted"}),
    ]
    sagemaker = FakeSageMaker(trainings, {"updraft:dag": "flights", "updraft:task": "tune"})
    sagemaker.tags_of = {
        "arn:tuning": {"updraft:task": "tune", "updraft:stopped-by": "airflow", "updraft:stop-reason": "cleared"},
        "arn:deleted": None,
    }  # fmt: skip
    found = jobs.ledger(target(sagemaker), NOW)["jobs"]
    assert [(each["stopped_by"], each["reason"]) for each in found] == [
        ("airflow", "cleared"), ("airflow", "cleared"), (None, None), (None, None),
    ]  # fmt: skip
    assert {(each["dag_run"], each["task"]) for each in found} == {("flights", "tune")}
    assert sagemaker.tags_read.count("arn:tuning") == 1


def test_warm_pool_is_paid_and_leaves_the_spot_saving_alone() -> None:
    pool = {"Status": "Reused", "ResourceRetainedBillableTimeInSeconds": 50}
    result = jobs.ledger(target(FakeSageMaker([training("updraft-test-a", WarmPoolStatus=pool)], {})), NOW)
    [found] = result["jobs"]
    assert (found["pool_seconds"], found["billable_seconds"], found["spot_saving"]) == (50, 100, None)
    assert (found["usd"], result["usd"]) == (0.15, 0.15)
    assert "pool_seconds" in jobs.readable(result)


def test_jobs_of_several_or_no_instance_types_are_listed() -> None:
    groups = [
        {"InstanceGroupName": "a", "InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
        {"InstanceGroupName": "b", "InstanceType": "ml.new.large", "InstanceCount": 1},
    ]
    serverless = training("updraft-test-serverless", ServerlessJobConfig={})
    del serverless["ResourceConfig"]
    mixed = training("updraft-test-groups", ResourceConfig={"InstanceGroups": groups})
    sagemaker = FakeSageMaker([mixed, serverless, training("updraft-test-plain")], {})
    result = jobs.ledger(target(sagemaker), NOW)
    assert [(each["instance"], each["usd"]) for each in result["jobs"]] == [
        ("2 x ml.g5.xlarge, ml.new.large", None), ("serverless", None), ("ml.g5.xlarge", 0.1),
    ]  # fmt: skip
    assert result["without_a_price"] == ["ml.new.large", "serverless"]
    spent, unpriced = spent_this_month(sagemaker, prefix="updraft-test", prices=PRICES, now=NOW)
    assert (round(spent, 4), unpriced) == (0.1, ["ml.new.large", "serverless"])


def endpoint(name: str, instance_type: str, created_at: datetime, **variant: Any) -> dict[str, Any]:
    return {
        "EndpointName": name,
        "EndpointArn": f"arn:{name}",
        "EndpointStatus": "InService",
        "EndpointConfigName": instance_type,
        "CreationTime": created_at,
        "ProductionVariants": [{"VariantName": "main"} | (variant or {"CurrentInstanceCount": 2})],
    }


def test_endpoints_cost_what_runs_since_the_month_began() -> None:
    sagemaker = FakeSageMaker([], {"updraft:dag": "flights", "updraft:task": "deploy"})
    sagemaker.endpoints = [
        endpoint("updraft-test-old", "ml.g5.xlarge", NOW - timedelta(days=90)),
        endpoint("updraft-test-new", "ml.new.large", NOW - timedelta(hours=3)),
        endpoint("updraft-testing-other", "ml.g5.xlarge", NOW),
    ]
    result = jobs.ledger(target(sagemaker), NOW)
    old, new = result["endpoints"]
    since_the_first = 19 * 24 + 12
    assert (old["hours"], old["usd"]) == (since_the_first, pytest.approx(since_the_first * 2 * 3.6))
    assert (new["hours"], new["usd"], new["instance"]) == (3, None, "2 x ml.new.large")
    assert (old["dag_run"], old["task"]) == ("flights", "deploy")
    assert (result["usd"], result["without_a_price"]) == (old["usd"], ["ml.new.large"])
    assert "updraft-test-old" in jobs.readable(result)
    assert "2026-03: $3369.60 of $50; not counted, since they have no price: ml.new.large" in jobs.readable(
        result
    )


def test_endpoint_counts_against_the_budget_until_it_is_deleted() -> None:
    sagemaker = FakeSageMaker([training("updraft-test-a")], {})
    sagemaker.endpoints = [endpoint("updraft-test-live", "ml.g5.xlarge", NOW - timedelta(hours=2))]
    sagemaker.deleted = ["updraft-test-gone"]
    spent, unpriced = spent_this_month(sagemaker, prefix="updraft-test", prices=PRICES, now=NOW)
    assert spent == pytest.approx(0.1 + 2 * 2 * 3.6)
    assert unpriced == []


def test_endpoints_without_an_instance_type_of_their_own_are_listed() -> None:
    pools = [
        {"InstanceType": "ml.g5.xlarge", "CurrentInstanceCount": 2},
        {"InstanceType": "ml.new.large", "CurrentInstanceCount": 0},
    ]
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    sagemaker, started = FakeSageMaker([], {}), NOW - timedelta(hours=1)
    sagemaker.endpoints = [
        endpoint("updraft-test-pools", "pools", started, CurrentInstanceCount=2, InstancePools=pools),
        endpoint("updraft-test-serverless", "serverless", started, CurrentServerlessConfig=serverless),
    ]
    found = jobs.ledger(target(sagemaker), NOW)["endpoints"]
    assert [(each["instance"], each["usd"]) for each in found] == [
        ("2 x ml.g5.xlarge", 7.2), ("serverless", None),
    ]  # fmt: skip

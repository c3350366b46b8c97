"""The estimate prices what a template holds, by hand-checked sums, and refuses what it doesn't know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.console import OperatorError
from ops.cost import managed, report
from ops.cost.estimate import FREE, PRICED, line_items
from ops.cost.model import HOURS_PER_MONTH, Environment, Usage

Template = dict[str, Any]


def stack(**resources: Template) -> Environment:
    return Environment.of({"updraft-dev-x": {"Resources": resources}})


def resource(resource_type: str, **properties: Any) -> Template:
    return {"Type": resource_type, "Properties": properties}


def total(environment: Environment, usage: Usage | None = None) -> float:
    usage = usage or Usage(image_gib=0)
    return sum(item.cost(usage) for item in line_items(environment, usage))


def fargate(**properties: Any) -> Environment:
    return stack(
        Task=resource(
            "AWS::ECS::TaskDefinition",
            Family="updraft-dev-webserver",
            Cpu="1024",
            Memory="4096",
            RuntimePlatform={"CpuArchitecture": "ARM64"},
            ContainerDefinitions=[],
        ),
        Service=resource(
            "AWS::ECS::Service", ServiceName="webserver", TaskDefinition={"Ref": "Task"}, **properties
        ),
    )


@pytest.mark.parametrize(
    ("environment", "usd"),
    [
        (fargate(DesiredCount=1), 730 * (0.03238 + 4 * 0.00356)),
        (fargate(DesiredCount=2), 2 * 730 * (0.03238 + 4 * 0.00356)),
        (
            fargate(CapacityProviderStrategy=[{"CapacityProvider": "FARGATE_SPOT", "Weight": 1}]),
            730 * (0.00971 + 4 * 0.00107),
        ),
        (
            fargate(NetworkConfiguration={"AwsvpcConfiguration": {"AssignPublicIp": "ENABLED"}}),
            730 * (0.03238 + 4 * 0.00356 + 0.005),
        ),
        (
            stack(
                Db=resource(
                    "AWS::RDS::DBInstance",
                    DBInstanceClass="db.t4g.micro",
                    AllocatedStorage="20",
                    StorageType="gp3",
                )
            ),
            730 * 0.016 + 20 * 0.115,
        ),
        (
            stack(
                Db=resource(
                    "AWS::RDS::DBInstance",
                    DBInstanceClass="db.t4g.micro",
                    AllocatedStorage="20",
                    StorageType="gp3",
                    MultiAZ=True,
                )
            ),
            2 * (730 * 0.016 + 20 * 0.115),
        ),
        (
            stack(
                Nat=resource(
                    "AWS::EC2::Instance",
                    InstanceType="t4g.micro",
                    SourceDestCheck=False,
                    NetworkInterfaces=[{"AssociatePublicIpAddress": True}],
                )
            ),
            730 * (0.0084 + 0.005) + 8 * 0.08,
        ),
        (stack(Key=resource("AWS::KMS::Key")), 1.0),
        (stack(Secret=resource("AWS::SecretsManager::Secret")), 0.4),
        (stack(Address=resource("AWS::EC2::EIP")), 730 * 0.005),
        (stack(Board=resource("AWS::CloudWatch::Dashboard")), 3.0),
        (stack(Fast=resource("AWS::CloudWatch::Alarm", Period=10)), 0.3),
        (
            stack(Two=resource("AWS::CloudWatch::Alarm", Metrics=[{"MetricStat": {"Period": 60}}, {}])),
            0.1,
        ),
        (stack(Endpoint=resource("AWS::EC2::VPCEndpoint")), 0.0),
        (
            stack(
                Endpoint=resource("AWS::EC2::VPCEndpoint", VpcEndpointType="Interface", SubnetIds=["a", "b"])
            ),
            2 * 730 * 0.01,
        ),
        (
            stack(
                Broker=resource(
                    "AWS::ElastiCache::ReplicationGroup",
                    Engine="valkey",
                    CacheNodeType="cache.t4g.micro",
                    NumCacheClusters=2,
                )
            ),
            2 * 730 * 0.0128,
        ),
    ],
)
def test_a_round_the_clock_month(environment: Environment, usd: float) -> None:
    assert total(environment) == pytest.approx(usd, abs=1e-6)


def test_a_resource_type_that_is_neither_priced_nor_free_fails_with_all_of_them() -> None:
    environment = stack(A=resource("AWS::Kafka::Cluster"), B=resource("AWS::MQ::Broker"))
    with pytest.raises(OperatorError, match=r"AWS::Kafka::Cluster, AWS::MQ::Broker.*ops/cost/estimate.py"):
        line_items(environment, Usage())


def test_an_instance_type_without_a_price_says_where_to_add_it() -> None:
    with pytest.raises(
        OperatorError, match=r"no price for u-24tb1.metal in prices.toml \[ec2_usd_per_hour\]"
    ):
        line_items(stack(Big=resource("AWS::EC2::Instance", InstanceType="u-24tb1.metal")), Usage())


def test_no_type_is_both_priced_and_free() -> None:
    assert not PRICED.keys() & FREE


def load_metric(queues: list[Template]) -> Environment:
    return stack(
        Worker=resource(
            "AWS::ECS::TaskDefinition",
            Family="updraft-dev-worker-default",
            Cpu="1024",
            Memory="4096",
            RuntimePlatform={"CpuArchitecture": "ARM64"},
            ContainerDefinitions=[],
        ),
        Load=resource(
            "AWS::Lambda::Function",
            Handler=managed.LOAD_METRIC,
            MemorySize=256,
            Architectures=["arm64"],
            Environment={"Variables": {"UPDRAFT_QUEUES": json.dumps(queues)}},
        ),
        Every=resource(
            "AWS::Events::Rule",
            ScheduleExpression="rate(1 minute)",
            Targets=[{"Arn": {"Fn::GetAtt": ["Load", "Arn"]}}],
        ),
    )


QUEUE = {"queue": "default", "slots": 8, "min": 0, "spot_percent": 100}


def test_workers_are_paid_for_what_the_tasks_need() -> None:
    environment = load_metric([QUEUE])
    idle = Usage(image_gib=0)
    busy = Usage(image_gib=0, task_hours=800)
    assert total(environment, busy) - total(environment, idle) == pytest.approx(
        800 * 2.5 / 8 * (0.00971 + 4 * 0.00107)
    )
    function = 730 * 60 * (0.25 * 50 * 0.0000133334 + 0.2e-6)
    metrics = 7 * 0.30 + 730 * 60 * 10e-6
    assert total(environment, idle) == pytest.approx(function + metrics)


def test_each_metric_that_airflow_may_write_is_billed() -> None:
    allowed = {"Name": managed.ALLOWED_METRICS, "Value": "^a,^b,^c"}
    environment = stack(
        One=resource("AWS::ECS::TaskDefinition", ContainerDefinitions=[{"Environment": [allowed]}]),
        Two=resource("AWS::ECS::TaskDefinition", ContainerDefinitions=[{"Environment": [allowed]}, {}]),
    )
    assert total(environment) == pytest.approx(3 * 0.30)


def test_workers_that_are_kept_cover_the_load_first() -> None:
    environment = load_metric([QUEUE | {"min": 1}])
    assert total(environment, Usage(image_gib=0, task_hours=800)) == pytest.approx(
        total(environment, Usage(image_gib=0))
    )


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("rate(1 minute)", 60),
        ("rate(5 minutes)", 12),
        ("rate(1 hour)", 1),
        ("rate(2 days)", 1 / 48),
        ("cron(0 3 * * ? *)", 1 / 24),
        ("cron(0 * * * ? *)", 1),
        ("cron(0/15 * * * ? *)", 4),
        ("at(2026-01-01T00:00:00)", 0),
    ],
)
def test_schedules_are_counted(expression: str, times: float) -> None:
    assert managed.times_per_hour(expression) == pytest.approx(times)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(OperatorError, match="not of the form"):
        managed.times_per_hour("whenever")


@given(awake=st.floats(0, 168), more=st.floats(0, 100), task_hours=st.floats(0, 10_000))
def test_sleeping_longer_never_costs_more(awake: float, more: float, task_hours: float) -> None:
    environment = fargate(DesiredCount=1)
    short = report.estimate(environment, task_hours=task_hours, awake_hours_per_week=awake)
    long = report.estimate(environment, task_hours=task_hours, awake_hours_per_week=min(168, awake + more))
    assert short["usd_per_month"]["asleep"] <= long["usd_per_month"]["asleep"] + 0.01
    assert long["usd_per_month"]["asleep"] <= long["usd_per_month"]["floor"] + 0.01


def test_mwaa_is_its_environment_its_storage_and_the_workers_beyond_the_first() -> None:
    assert report.mwaa_usd(0) == pytest.approx(730 * 0.49 + 2.0)
    hours = 4000 * 2.5 / 5
    assert report.mwaa_usd(4000) == pytest.approx(730 * 0.49 + 2.0 + (hours - HOURS_PER_MONTH) * 0.055)


def test_the_table_names_the_source_and_ends_in_the_sum() -> None:
    document = report.estimate(fargate(DesiredCount=1), task_hours=0, awake_hours_per_week=50)
    text = report.readable(document)
    assert "34.23" in text
    assert "us-east-1, 2026-09" in text
    assert document["usd_per_month"]["floor"] == pytest.approx(
        sum(row["floor"] for row in document["items"]), abs=0.05
    )

"""What each choice of an environment makes in AWS."""

import json
from functools import cache
from typing import Any

import pytest

from runtime.migrate import DOWNGRADES
from stacks.config import ROOT
from tests.stacks.assemblies import Template, changed, resources, synthesize, templates, values_of

pytestmark = pytest.mark.synth
ON_EC2 = {
    "cpu": 2048, "memory_mib": 8192, "concurrency": 8, "min": 0, "max": 4, "capacity": "EC2",
    "instance_type": "m7g.xlarge",
}  # fmt: skip


@cache
def unusual() -> dict[str, Template]:
    """What neither dev nor prod has: SQS, a merged control plane, a second queue on instances."""
    values = changed(
        values_of("dev"),
        topology="merged",
        broker__={"kind": "sqs", "visibility_timeout_seconds": 7200},
        services__={"control_plane": {"cpu": 1024, "memory_mib": 4096}},
        workers={"big": ON_EC2},
        airflow={"metrics": False},
    )
    return synthesize("mine", values)


def definition(found: dict[str, Template], family: str) -> Any:
    [only] = [
        item["Properties"]
        for _, item in resources(found, "AWS::ECS::TaskDefinition")
        if item["Properties"]["Family"] == family
    ]
    return only


def clear(container: Any) -> dict[str, Any]:
    return {item["Name"]: item["Value"] for item in container["Environment"]}


def test_nat_instance_has_a_public_address_and_forwards() -> None:
    found = {"network": templates("dev")["network"]}
    [(logical_id, instance)] = resources(found, "AWS::EC2::Instance")
    [interface] = instance["Properties"]["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True
    assert instance["Properties"]["SourceDestCheck"] is False
    assert "MASQUERADE" in json.dumps(instance["Properties"]["UserData"])
    through = [
        route["Properties"]["DestinationCidrBlock"]
        for _, route in resources(found, "AWS::EC2::Route")
        if route["Properties"].get("InstanceId") == {"Ref": logical_id}
    ]
    assert through == ["0.0.0.0/0"] * 2


def test_bastion_beside_gateways_is_private_and_forwards_nothing() -> None:
    [(_, instance)] = resources(templates("prod"), "AWS::EC2::Instance")
    assert "NetworkInterfaces" not in instance["Properties"]
    assert "MASQUERADE" not in json.dumps(instance["Properties"]["UserData"])
    assert sum(1 for _ in resources(templates("prod"), "AWS::EC2::NatGateway")) == 3


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_bastion_asks_for_tokens_without_a_template_whose_name_would_clash(name: str) -> None:
    [(_, instance)] = resources(templates(name), "AWS::EC2::Instance")
    assert instance["Properties"]["MetadataOptions"]["HttpTokens"] == "required"
    assert list(resources({"network": templates(name)["network"]}, "AWS::EC2::LaunchTemplate")) == []


def test_migration_and_maintenance_hand_on_exactly_their_own_roles() -> None:
    template = {"airflow": templates("prod")["airflow"]}
    passing = [
        (logical_id, statement)
        for logical_id, policy in resources(template, "AWS::IAM::Policy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "iam:PassRole"
    ]
    assert len(passing) == 3
    for logical_id, statement in passing:
        task = "MaintenanceTask" if logical_id.startswith("Maintenance") else "MigrationTask"
        roles = sorted(resource["Fn::GetAtt"][0] for resource in statement["Resource"])
        assert len(roles) == 2
        assert roles[0].startswith("ControlRole")
        assert roles[1].startswith(f"{task}DefinitionExecutionRole")
        assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def migration(found: dict[str, Template]) -> tuple[str, Template]:
    [(logical_id, resource)] = resources(found, "Custom::DatabaseMigration")
    return logical_id, resource["Properties"]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_migration_stops_and_starts_exactly_the_services_that_wait_for_it(name: str) -> None:
    logical_id, properties = migration(templates(name))
    waiting = {
        item["Properties"]["ServiceName"]: str(item["Properties"]["DesiredCount"])
        for _, item in resources({"airflow": templates(name)["airflow"]}, "AWS::ECS::Service")
        if logical_id in item.get("DependsOn", [])
    }
    # Running tasks send their heartbeats to the webserver; Flower knows no database.
    kept = {"webserver", "flower"}
    assert properties["Services"] == {key: count for key, count in waiting.items() if key not in kept}


def test_migration_tells_the_newer_image_which_versions_the_lock_has() -> None:
    lock = (ROOT / "docker" / "airflow" / "requirements.txt").read_text()
    packages = migration(templates("prod"))[1]["Packages"]
    assert [package.partition("==")[0] for package in packages] == list(DOWNGRADES)
    assert all(f"\n{package} \\\n" in lock for package in packages)


def test_workers_of_the_new_image_wait_for_the_schema() -> None:
    logical_id, _ = migration(templates("prod"))
    workers = [
        item
        for _, item in resources(templates("prod"), "AWS::ECS::TaskDefinition")
        if "-worker-" in item["Properties"]["Family"]
    ]
    assert workers
    assert all(logical_id in worker["DependsOn"] for worker in workers)


def test_migration_may_scale_no_other_service() -> None:
    [statement] = [
        statement
        for _, policy in resources({"airflow": templates("prod")["airflow"]}, "AWS::IAM::Policy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "ecs:UpdateService" in statement["Action"]
    ]
    # `Fn::Join` of the ARN's parts: the last one names the service.
    names = {resource["Fn::Join"][1][-1].rpartition("/")[2] for resource in statement["Resource"]}
    assert names == {"scheduler", "dag-processor", "triggerer"}


def test_merged_control_plane_is_one_task_that_is_found_as_the_webserver() -> None:
    merged = definition(unusual(), "updraft-mine-control-plane")
    assert [container["Name"] for container in merged["ContainerDefinitions"]] == [
        "webserver", "scheduler", "dag-processor", "verifier", "triggerer",
    ]  # fmt: skip
    assert all("HealthCheck" in container for container in merged["ContainerDefinitions"])
    groups = {
        container["LogConfiguration"]["Options"]["awslogs-stream-prefix"]
        for container in merged["ContainerDefinitions"]
    }
    assert groups == {"webserver", "scheduler", "dag-processor", "verifier", "triggerer"}
    names = [item["Properties"]["Name"] for _, item in resources(unusual(), "AWS::ServiceDiscovery::Service")]
    assert sorted(names) == ["mlflow", "webserver"]


def test_queues_hide_a_message_as_long_as_the_environment_says_and_park_what_fails() -> None:
    queues = dict(resources(unusual(), "AWS::SQS::Queue"))
    named = {
        item["Properties"]["QueueName"]: item["Properties"]
        for item in queues.values()
        if "QueueName" in item["Properties"]
    }
    assert set(named) == {"updraft-mine-default", "updraft-mine-big"}
    for queue in named.values():
        assert queue["VisibilityTimeout"] == 7200
        assert queue["SqsManagedSseEnabled"] is True
        [dead] = [key for key in queues if key.startswith("BrokerDeadLetters")]
        assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead, "Arn"]}
    worker = clear(definition(unusual(), "updraft-mine-worker-default")["ContainerDefinitions"][0])
    assert worker["UPDRAFT_BROKER"] == "sqs"
    assert worker["UPDRAFT_BROKER_VISIBILITY_TIMEOUT_SECONDS"] == "7200"
    assert list(resources(unusual(), "AWS::ElastiCache::ReplicationGroup")) == []


def test_instances_stay_while_a_task_runs_and_are_drained_before_they_go() -> None:
    [(provider_id, provider)] = resources(unusual(), "AWS::ECS::CapacityProvider")
    settings = provider["Properties"]["AutoScalingGroupProvider"]
    assert settings["ManagedTerminationProtection"] == "ENABLED"
    assert settings["ManagedDraining"] == "ENABLED"
    assert settings["ManagedScaling"]["Status"] == "ENABLED"
    [(_, group)] = resources(unusual(), "AWS::AutoScaling::AutoScalingGroup")
    # Without it ECS refuses managed termination protection.
    assert group["Properties"]["NewInstancesProtectedFromScaleIn"] is True
    assert (group["Properties"]["MinSize"], group["Properties"]["MaxSize"]) == ("0", "8")
    [(_, template)] = resources(unusual(), "AWS::EC2::LaunchTemplate")
    data = template["Properties"]["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert "LaunchTemplateName" not in template["Properties"]
    big = definition(unusual(), "updraft-mine-worker-big")
    assert big["RequiresCompatibilities"] == ["EC2"]
    assert big["NetworkMode"] == "awsvpc"
    [(_, association)] = resources(unusual(), "AWS::ECS::ClusterCapacityProviderAssociations")
    assert association["Properties"]["CapacityProviders"] == [
        "FARGATE", "FARGATE_SPOT", {"Ref": provider_id},
    ]  # fmt: skip


def test_prod_outlives_a_zone() -> None:
    found = templates("prod")
    [(_, broker)] = resources(found, "AWS::ElastiCache::ReplicationGroup")
    assert broker["Properties"]["NumCacheClusters"] == 2
    assert broker["Properties"]["AutomaticFailoverEnabled"] is True
    assert broker["Properties"]["MultiAZEnabled"] is True
    counts = {
        item["Properties"]["ServiceName"]: item["Properties"]["DesiredCount"]
        for _, item in resources(found, "AWS::ECS::Service")
    }
    assert (counts["scheduler"], counts["webserver"], counts["triggerer"]) == (2, 2, 2)


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_metrics_are_told_where_standard_output_is_a_log_group_and_nowhere_else(name: str) -> None:
    for _, item in resources(templates(name), "AWS::ECS::TaskDefinition"):
        family = item["Properties"]["Family"].removeprefix(f"updraft-{name}-")
        told = "AIRFLOW__METRICS__STATSD_ON" in clear(item["Properties"]["ContainerDefinitions"][0])
        assert told == (family in ("scheduler", "dag-processor", "triggerer")), family


def test_metrics_can_be_off() -> None:
    assert "AIRFLOW__METRICS" not in json.dumps(unusual()["airflow"])
    [(_, page)] = resources(unusual(), "AWS::CloudWatch::Dashboard")
    assert "scheduler.tasks.starving" not in json.dumps(page)


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_users_secrets_are_readable_below_the_environments_own_names_only(name: str) -> None:
    readable = {
        json.dumps(resource)
        for logical_id, policy in resources(templates(name), "AWS::IAM::Policy")
        if logical_id.startswith(("ControlRole", "TaskRole"))
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "secretsmanager:GetSecretValue" in statement["Action"]
        for resource in statement["Resource"]
    }
    assert len(readable) == 2
    for kind in ("connections", "variables"):
        assert any(f":secret:updraft/{name}/{kind}/*" in resource for resource in readable)


def test_clean_up_runs_every_night_in_the_services_network() -> None:
    schedules = [schedule for _, schedule in resources(templates("prod"), "AWS::Scheduler::Schedule")]
    [schedule] = [item for item in schedules if "EcsParameters" in item["Properties"]["Target"]]
    target = schedule["Properties"]["Target"]
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 0
    assert "updraft-prod-maintenance" in json.dumps(target["EcsParameters"]["TaskDefinitionArn"])
    network = target["EcsParameters"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "DISABLED"
    assert len(network["Subnets"]) == 3


@cache
def with_spark(engine: str) -> dict[str, Template]:
    return synthesize("spark", changed(values_of("dev"), spark={"engine": engine}))


def settings_of(found: dict[str, Template]) -> str:
    [(_, parameter)] = [
        (logical_id, item)
        for logical_id, item in resources({"workflows": found["workflows"]}, "AWS::SSM::Parameter")
        if item["Properties"]["Name"].endswith("/workflows")
    ]
    return json.dumps(parameter["Properties"]["Value"])


def spark_statements(found: dict[str, Template]) -> dict[str, Template]:
    """The tasks' permissions to use the engine, by action."""
    [policy] = [
        item
        for logical_id, item in resources(found, "AWS::IAM::ManagedPolicy")
        if logical_id.startswith("SparkPolicy")
    ]
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    return {
        action: statement
        for statement in statements
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }


def test_spark_on_ecs_is_one_task_that_reaches_the_data_bucket_and_nothing_else() -> None:
    found = with_spark("ecs")
    task = definition(found, "updraft-spark-spark")
    [container] = task["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert "Secrets" not in container
    assert clear(container)["SPARK_MEMORY_MIB"] == task["Memory"] == "8192"
    [role_id] = [task["TaskRoleArn"]["Fn::GetAtt"][0]]
    [policy] = [
        item
        for _, item in resources(found, "AWS::IAM::Policy")
        if {"Ref": role_id} in item["Properties"]["Roles"]
    ]
    actions = [
        action
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    ]
    assert all(action.startswith("s3:") for action in actions)
    volumes = {mount["ContainerPath"] for mount in container["MountPoints"]}
    assert volumes >= {"/tmp", "/opt/spark"}
    allowed = spark_statements(found)
    assert "updraft-spark-spark" in json.dumps(allowed["ecs:RunTask"]["Resource"])
    # No worker has this tag: nobody stops one.
    assert allowed["ecs:StopTask"]["Condition"]["StringEquals"] == {
        "aws:ResourceTag/updraft:program": "spark"
    }
    assert '\\"engine\\":\\"ecs\\"' in settings_of(found)


def test_spark_on_emr_serverless_stops_when_it_is_idle_and_is_bounded() -> None:
    found = with_spark("emr-serverless")
    [(_, application)] = resources(found, "AWS::EMRServerless::Application")
    properties = application["Properties"]
    assert properties["AutoStopConfiguration"] == {"Enabled": True, "IdleTimeoutMinutes": 5}
    assert properties["MaximumCapacity"] == {"Cpu": "16 vCPU", "Memory": "64 GB"}
    assert properties["Architecture"] == "ARM64"
    assert set(spark_statements(found)) >= {
        "emr-serverless:StartJobRun",
        "emr-serverless:CancelJobRun",
        "iam:PassRole",
    }
    assert '\\"engine\\":\\"emr-serverless\\"' in settings_of(found)


def test_without_an_engine_there_is_nothing_of_spark() -> None:
    assert "SparkPolicy" not in json.dumps(templates("dev"))
    assert '\\"spark\\":{\\"engine\\":\\"none\\"}' in settings_of(templates("dev"))

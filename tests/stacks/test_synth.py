"""Every shipped environment synthesizes, and what it holds is safe."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdas.load_metric.logic import Queue
from stacks.config import load_environment
from stacks.constructs.writable_folders import EXEC_FOLDERS
from tests.stacks import assemblies
from tests.stacks.assemblies import Template

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENTS = ("dev", "prod")
# Node of the tools' environment comes first, as the launcher has it.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}
pytestmark = pytest.mark.synth


def resources(environment: str, resource_type: str) -> Iterator[tuple[str, Template]]:
    return assemblies.resources(assemblies.templates(environment), resource_type)


def statements(environment: str) -> Iterator[Template]:
    for resource_type in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        for _, resource in resources(environment, resource_type):
            yield from resource["Properties"]["PolicyDocument"]["Statement"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_stack_is_there_with_its_outputs(environment: str) -> None:
    found = assemblies.templates(environment)
    assert set(found) == {"network", "storage", "airflow", "delivery", "scaling", "workflows", "tracking"}
    outputs = {
        name
        for template in found.values()
        for name in template.get("Outputs", {})
        if not name.startswith("ExportsOutput")
    }
    wanted = {
        "VpcId", "BastionInstanceId", "DatabaseEndpoint", "BundlesBucket", "ClusterName", "AdminSecretArn",
        "FlowerSecretArn", "ApplicationName", "PointerParameter", "LoadMetricFunctionName", "SettingsParameter",
        "SleepFunctionName", "TrackingSecretArn",
    }  # fmt: skip
    assert outputs >= (wanted - {"FlowerSecretArn"} if environment == "dev" else wanted)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_policy_allows_a_whole_service(environment: str) -> None:
    # CDK's own S3 grants abbreviate the read actions of one bucket; nothing else may.
    abbreviated = {"s3:GetObject*", "s3:GetBucket*", "s3:List*", "s3:DeleteObject*", "s3:Abort*"}
    found = set()
    for statement in statements(environment):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        found |= {action for action in actions if "*" in action}
    assert found <= abbreviated


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_template_holds_a_password(environment: str) -> None:
    text = json.dumps(assemblies.templates(environment))
    assert not re.search(r'"(MasterUserPassword|AuthToken|Password)": "(?!\{\{resolve)', text)
    for _, definition in resources(environment, "AWS::ECS::TaskDefinition"):
        for container in definition["Properties"]["ContainerDefinitions"]:
            clear = {item["Name"] for item in container["Environment"]}
            # Where secrets are kept is no secret.
            clear -= {"AIRFLOW__SECRETS__BACKEND", "AIRFLOW__SECRETS__BACKEND_KWARGS"}
            assert not {name for name in clear if re.search("PASSWORD|SECRET|FERNET|TOKEN", name)}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_database_is_encrypted_and_takes_only_tls(environment: str) -> None:
    [(_, database)] = resources(environment, "AWS::RDS::DBInstance")
    assert database["Properties"]["StorageEncrypted"] is True
    assert database["Properties"]["PubliclyAccessible"] is False
    assert database["Properties"]["EnableIAMDatabaseAuthentication"] is True
    [(_, parameters)] = resources(environment, "AWS::RDS::DBParameterGroup")
    assert parameters["Properties"]["Parameters"] == {
        "rds.force_ssl": "1", "track_commit_timestamp": "1",
    }  # fmt: skip


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_database_names_no_minor_version_that_aws_withdraws(environment: str) -> None:
    [(_, database)] = resources(environment, "AWS::RDS::DBInstance")
    assert database["Properties"]["EngineVersion"] == "17"
    assert database["Properties"]["AutoMinorVersionUpgrade"] is True
    assert "AllowMajorVersionUpgrade" not in database["Properties"]
    [(_, parameters)] = resources(environment, "AWS::RDS::DBParameterGroup")
    assert parameters["Properties"]["Family"] == "postgres17"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_alarms_may_publish_to_their_topic(environment: str) -> None:
    told = {
        topic["Ref"]
        for _, alarm in resources(environment, "AWS::CloudWatch::Alarm")
        for topic in alarm["Properties"].get("AlarmActions", [])
    }
    assert told
    allowed = {
        topic["Ref"]
        for _, policy in resources(environment, "AWS::SNS::TopicPolicy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        if statement["Action"] == "sns:Publish"
        and statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
        for topic in policy["Properties"]["Topics"]
    }
    assert told <= allowed


def test_prod_database_survives_a_destroy() -> None:
    [(_, database)] = resources("prod", "AWS::RDS::DBInstance")
    assert database["DeletionPolicy"] == "Snapshot"
    assert database["Properties"]["DeletionProtection"] is True
    assert database["Properties"]["MultiAZ"] is True


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_buckets_are_private_versioned_and_tls_only(environment: str) -> None:
    for _, bucket in resources(environment, "AWS::S3::Bucket"):
        properties = bucket["Properties"]
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    policies = [policy for _, policy in resources(environment, "AWS::S3::BucketPolicy")]
    assert len(policies) == 3
    assert all("aws:SecureTransport" in json.dumps(policy) for policy in policies)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_is_reachable_from_outside(environment: str) -> None:
    rules = [rule for _, rule in resources(environment, "AWS::EC2::SecurityGroupIngress")]
    assert rules
    assert all("SourceSecurityGroupId" in rule["Properties"] for rule in rules)
    open_groups = {
        logical_id
        for logical_id, group in resources(environment, "AWS::EC2::SecurityGroup")
        if any(
            "CidrIp" in rule and rule["CidrIp"] == "0.0.0.0/0"
            for rule in group["Properties"].get("SecurityGroupIngress", [])
        )
    }
    assert open_groups == set()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_verifier_runs_beside_the_dag_processor_and_the_bastion_alone_reaches_it(environment: str) -> None:
    [verifier] = [
        container
        for _, definition in resources(environment, "AWS::ECS::TaskDefinition")
        for container in definition["Properties"]["ContainerDefinitions"]
        if container["Name"] == "verifier"
    ]
    assert {"UPDRAFT_VERIFIER_SECRET"} <= {item["Name"] for item in verifier["Secrets"]}
    [releases] = [mount for mount in verifier["MountPoints"] if mount["SourceVolume"] == "releases"]
    assert releases["ReadOnly"] is True
    [rule] = [
        rule["Properties"]
        for _, rule in resources(environment, "AWS::EC2::SecurityGroupIngress")
        if rule["Properties"]["FromPort"] == 8790
    ]
    assert "Bastion" in json.dumps(rule["SourceSecurityGroupId"])
    assert "Airflow" in json.dumps(rule["GroupId"])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_bastion_writes_the_pointer_and_the_progress_and_no_other_parameter(environment: str) -> None:
    writes = [
        statement
        for _, policy in resources(environment, "AWS::IAM::ManagedPolicy")
        if "Bastion" in json.dumps(policy["Properties"]["Roles"])
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "ssm:PutParameter" in json.dumps(statement)
    ]
    resources_written = json.dumps([statement["Resource"] for statement in writes])
    assert len(writes) == 2
    assert "bundle/pointer" in resources_written
    assert "Progress" in resources_written
    assert "*" not in resources_written


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_workers_are_tasks_and_not_a_service(environment: str) -> None:
    names = {
        service["Properties"]["ServiceName"] for _, service in resources(environment, "AWS::ECS::Service")
    }
    separate = {"webserver", "scheduler", "dag-processor", "triggerer", "flower", "mlflow"}
    assert names == ({"control-plane", "mlflow"} if environment == "dev" else separate)
    families = {
        definition["Properties"]["Family"]
        for _, definition in resources(environment, "AWS::ECS::TaskDefinition")
    }
    assert f"updraft-{environment}-worker-default" in families


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_container_is_health_checked_and_stops_within_fargates_limit(environment: str) -> None:
    for _, definition in resources(environment, "AWS::ECS::TaskDefinition"):
        for container in definition["Properties"]["ContainerDefinitions"]:
            if not definition["Properties"]["Family"].endswith(("-migration", "-maintenance")):
                assert container["HealthCheck"]["Command"][0] == "CMD"
            assert container.get("StopTimeout", 30) <= 120


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_reaper_stops_only_what_is_tagged_and_tells_when_it_cannot_work(environment: str) -> None:
    stops = [
        statement for statement in statements(environment)
        if "sagemaker:StopTrainingJob" in statement["Action"] and "sagemaker:CreateTrainingJob" not in statement["Action"]
    ]  # fmt: skip
    [stop] = stops
    assert stop["Condition"]["StringEquals"] == {
        "aws:ResourceTag/updraft:project": "updraft", "aws:ResourceTag/updraft:environment": environment,
    }  # fmt: skip
    alarms = [
        alarm["Properties"] for _, alarm in resources(environment, "AWS::CloudWatch::Alarm")
        if "reaper" in alarm["Properties"]["AlarmDescription"]
    ]  # fmt: skip
    [alarm] = alarms
    assert alarm["AlarmActions"]
    assert alarm["Threshold"] == 1


def test_wrong_environment_ends_in_plain_words() -> None:
    ran = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=ENVIRONMENT | {"CDK_CONTEXT_JSON": '{"environment": "nowhere"}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    # Users have files of their own beside the shipped ones.
    assert ran.stderr.startswith("no environment 'nowhere': there are ")
    assert ran.stderr.strip().endswith("Copy one of them to environments/nowhere.toml")


@pytest.mark.parametrize(("environment", "wanted"), [("dev", True), ("prod", False)])
def test_commands_run_in_containers_only_where_the_environment_says_so(
    environment: str, wanted: bool
) -> None:
    services = [service["Properties"] for _, service in resources(environment, "AWS::ECS::Service")]
    assert {service.get("EnableExecuteCommand", False) for service in services} == {wanted}
    granted = [
        item
        for item in statements(environment)
        if "ssmmessages" in json.dumps(item["Action"])
        # The bastion's own, for tunnels.
        and "ssm:UpdateInstanceInformation" not in item["Action"]
    ]
    assert bool(granted) is wanted
    for statement in granted:
        assert {action for action in statement["Action"] if action.startswith("ssmm")} == {
            "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
        }  # fmt: skip


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nobody_outside_the_account_may_push_unless_a_repository_is_named(environment: str) -> None:
    for _, role in resources(environment, "AWS::IAM::Role"):
        for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_load_metric_gets_the_queues_that_it_reads(environment: str) -> None:
    [variables] = [
        function["Properties"]["Environment"]["Variables"]
        for _, function in resources(environment, "AWS::Lambda::Function")
        if "UPDRAFT_QUEUES" in function["Properties"].get("Environment", {}).get("Variables", {})
    ]
    queues = [Queue(**queue) for queue in json.loads(variables["UPDRAFT_QUEUES"])]
    assert [queue.queue for queue in queues] == list(load_environment(environment).workers)
    assert [queue.task_definition for queue in queues] == [
        f"updraft-{environment}-worker-{queue.queue}" for queue in queues
    ]
    records = {
        parameter["Properties"]["Name"] for _, parameter in resources(environment, "AWS::SSM::Parameter")
    }
    assert {f"/updraft/{environment}/workers/{queue.queue}" for queue in queues} <= records


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_the_load_metric_starts_workers_and_nobody_stops_one(environment: str) -> None:
    actions = [
        action
        for statement in statements(environment)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    ]
    assert "ecs:RunTask" in actions
    assert "ecs:StopTask" not in actions


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_containers_run_read_only_with_the_volumes_of_their_image(environment: str) -> None:
    for _, definition in resources(environment, "AWS::ECS::TaskDefinition"):
        properties = definition["Properties"]
        empty = {volume["Name"] for volume in properties["Volumes"] if len(volume) == 1}
        for container in properties["ContainerDefinitions"]:
            assert container["ReadonlyRootFilesystem"] is True
            assert container["LinuxParameters"]["InitProcessEnabled"] is True
            image = "mlflow" if container["Name"] == "mlflow" else "airflow"
            declared = re.search(
                r"^VOLUME (.+)$", (ROOT / "docker" / image / "Dockerfile").read_text(), re.MULTILINE
            )
            assert declared is not None
            mounted = {
                mount["ContainerPath"] for mount in container["MountPoints"] if mount["SourceVolume"] in empty
            }
            # Without the image's word a volume belongs to root.
            agent = set(EXEC_FOLDERS) if load_environment(environment).execute_command else set()
            assert mounted == set(json.loads(declared[1])) | agent
            # No two containers of a task write to one volume.
            empty -= {mount["SourceVolume"] for mount in container["MountPoints"]}
        assert not empty


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_sleep_reaches_the_bastion_by_its_tag_alone(environment: str) -> None:
    found = [
        statement
        for statement in statements(environment)
        if {"ec2:StartInstances", "ec2:StopInstances"} & set(statement["Action"])
    ]
    [statement] = found
    tag = {"aws:ResourceTag/updraft:codedeploy": f"updraft-{environment}"}
    assert statement["Condition"] == {"StringEquals": tag}
    assert json.dumps(statement["Resource"]).endswith(':instance/*"]]}')
    [(_, bastion)] = resources(environment, "AWS::EC2::Instance")
    tags = {each["Key"]: each["Value"] for each in bastion["Properties"]["Tags"]}
    assert tags["updraft:codedeploy"] == f"updraft-{environment}"


def test_other_user_data_makes_another_bastion() -> None:
    values = assemblies.values_of("dev")
    again = assemblies.synthesize("dev", values)
    other = assemblies.synthesize("dev", assemblies.changed(values, network={"nat": "gateway"}))
    [(first, _)] = resources("dev", "AWS::EC2::Instance")
    assert [name for name, _ in assemblies.resources(again, "AWS::EC2::Instance")] == [first]
    assert [name for name, _ in assemblies.resources(other, "AWS::EC2::Instance")] != [first]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_capacity_providers_outlive_the_services_that_use_them(environment: str) -> None:
    airflow = {"airflow": assemblies.templates(environment)["airflow"]}
    [(providers, _)] = assemblies.resources(airflow, "AWS::ECS::ClusterCapacityProviderAssociations")
    services = list(assemblies.resources(airflow, "AWS::ECS::Service"))
    assert services
    assert [name for name, service in services if providers not in service["DependsOn"]] == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_function_of_ours_has_lambdas_default_memory(environment: str) -> None:
    memory = {
        name: function["Properties"].get("MemorySize", 128)
        for name, function in resources(environment, "AWS::Lambda::Function")
        if str(function["Properties"]["Handler"]).startswith("lambdas.")
    }
    assert len(memory) >= 6
    assert {name: size for name, size in memory.items() if size < 256} == {}
    [sleeper] = [size for name, size in memory.items() if name.startswith("SleepSleeper")]
    assert sleeper >= 512

"""Every shipped environment synthesizes, and what it holds is safe."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENTS = ("dev", "prod")
# Node of the tools' environment comes first, as the launcher has it.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}
STATEFUL = {
    "AWS::RDS::DBInstance": {"MetadataDb834921EB"},
    "AWS::EFS::FileSystem": {"ReleasesE6BA3EBF"},
    "AWS::S3::Bucket": {"LogsBucket5C52C3D2", "BundlesBucketB9647150", "DataBucketE6B0FAA8"},
}
pytestmark = pytest.mark.synth
Template = dict[str, Any]


@cache
def templates(environment: str) -> dict[str, Template]:
    """The environment's templates by the stack's short name."""
    out = Path(mkdtemp(prefix="updraft-synth-"))
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"environment": environment}
    ran = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=ENVIRONMENT | {"CDK_OUTDIR": str(out), "CDK_CONTEXT_JSON": json.dumps(context)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    prefix = f"updraft-{environment}-"
    return {
        file.name.removeprefix(prefix).removesuffix(".template.json"): json.loads(file.read_text())
        for file in out.glob("*.template.json")
    }


def resources(environment: str, resource_type: str) -> Iterator[tuple[str, Template]]:
    for template in templates(environment).values():
        for logical_id, resource in template.get("Resources", {}).items():
            if resource["Type"] == resource_type:
                yield logical_id, resource


def statements(environment: str) -> Iterator[Template]:
    for resource_type in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        for _, resource in resources(environment, resource_type):
            yield from resource["Properties"]["PolicyDocument"]["Statement"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_stack_is_there_with_its_outputs(environment: str) -> None:
    found = templates(environment)
    assert set(found) == {"network", "storage", "airflow", "delivery", "scaling", "workflows", "tracking"}
    outputs = {
        name
        for template in found.values()
        for name in template.get("Outputs", {})
        if not name.startswith("ExportsOutput")
    }
    assert outputs >= {
        "VpcId", "BastionInstanceId", "DatabaseEndpoint", "BundlesBucket", "ClusterName", "AdminSecretArn",
        "FlowerSecretArn", "ApplicationName", "PointerParameter", "LoadMetricFunctionName", "SettingsParameter",
        "TrackingSecretArn",
    }  # fmt: skip


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
    text = json.dumps(templates(environment))
    assert not re.search(r'"(MasterUserPassword|AuthToken|Password)": "(?!\{\{resolve)', text)
    for _, definition in resources(environment, "AWS::ECS::TaskDefinition"):
        for container in definition["Properties"]["ContainerDefinitions"]:
            clear = {item["Name"] for item in container["Environment"]}
            assert not {name for name in clear if re.search("PASSWORD|SECRET|FERNET|TOKEN", name)}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_stateful_resources_keep_their_logical_ids(environment: str) -> None:
    for resource_type, wanted in STATEFUL.items():
        assert {logical_id for logical_id, _ in resources(environment, resource_type)} == wanted


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_database_is_encrypted_and_takes_only_tls(environment: str) -> None:
    [(_, database)] = resources(environment, "AWS::RDS::DBInstance")
    assert database["Properties"]["StorageEncrypted"] is True
    assert database["Properties"]["PubliclyAccessible"] is False
    assert database["Properties"]["EnableIAMDatabaseAuthentication"] is True
    [(_, parameters)] = resources(environment, "AWS::RDS::DBParameterGroup")
    assert parameters["Properties"]["Parameters"] == {"rds.force_ssl": "1"}


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
def test_workers_are_tasks_and_not_a_service(environment: str) -> None:
    names = {
        service["Properties"]["ServiceName"] for _, service in resources(environment, "AWS::ECS::Service")
    }
    assert names == {"webserver", "scheduler", "dag-processor", "triggerer", "flower", "mlflow"}
    families = {
        definition["Properties"]["Family"]
        for _, definition in resources(environment, "AWS::ECS::TaskDefinition")
    }
    assert f"updraft-{environment}-worker-default" in families


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_container_is_health_checked_and_stops_within_fargates_limit(environment: str) -> None:
    for _, definition in resources(environment, "AWS::ECS::TaskDefinition"):
        for container in definition["Properties"]["ContainerDefinitions"]:
            if not definition["Properties"]["Family"].endswith("-migration"):
                assert container["HealthCheck"]["Command"][0] == "CMD"
            assert container.get("StopTimeout", 30) <= 120


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
    assert ran.stderr.strip() == (
        "no environment 'nowhere': there are dev, local, prod. Copy one of them to environments/nowhere.toml"
    )


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
            assert mounted == set(json.loads(declared[1]))
            # No two containers of a task write to one volume.
            empty -= {mount["SourceVolume"] for mount in container["MountPoints"]}
        assert not empty

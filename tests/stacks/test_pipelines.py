"""What the environment holds for pipelines: the warehouse's log-in and the topic of failed runs."""

import json

import pytest

from tests.stacks.assemblies import resources, templates

pytestmark = pytest.mark.synth
ENVIRONMENTS = ("dev", "prod")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_the_migration_is_handed_the_warehouses_password(environment: str) -> None:
    holders = [
        definition["Properties"]["Family"]
        for _, definition in resources(templates(environment), "AWS::ECS::TaskDefinition")
        if "WAREHOUSE" in json.dumps(definition)
    ]
    assert holders == [f"updraft-{environment}-migration"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_connection_verifies_the_server_and_holds_no_password_in_the_template(environment: str) -> None:
    [secret] = [
        secret["Properties"]
        for _, secret in resources(templates(environment), "AWS::SecretsManager::Secret")
        if secret["Properties"].get("Name") == f"updraft/{environment}/connections/warehouse"
    ]
    template = "".join(
        part if isinstance(part, str) else "1"
        for part in secret["GenerateSecretString"]["SecretStringTemplate"]["Fn::Join"][1]
    )
    connection = json.loads(template)
    assert "password" not in connection
    assert connection["extra"]["sslmode"] == "verify-full"
    assert (connection["conn_type"], connection["schema"], connection["login"]) == (
        "postgres", "warehouse", "warehouse",
    )  # fmt: skip


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_dag_processor_and_workers_may_tell_of_failures_and_of_nothing_else(environment: str) -> None:
    [policy] = [
        policy["Properties"]
        for logical_id, policy in resources(templates(environment), "AWS::IAM::ManagedPolicy")
        if logical_id.startswith("NotificationPolicy")
    ]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == "sns:Publish"
    topic = statement["Resource"]["Ref"]
    assert dict(resources(templates(environment), "AWS::SNS::Topic"))[topic]["Properties"]["DisplayName"] == (
        f"updraft-{environment} failed DAG runs"
    )
    assert len(policy["Roles"]) == 2

"""What GitHub's token must say to become the pushing role, and what that role may then do."""

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_s3 as s3

from stacks.config import ENVIRONMENTS, ConfigError, load_environment
from stacks.constructs.github_role import GitHubRole

ISSUER = "token.actions.githubusercontent.com"


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The resources of a stack that holds nothing but the role and what it names."""
    app = cdk.App(outdir=str(tmp_path_factory.mktemp("assembly")))
    stack = cdk.Stack(app, "S", env=cdk.Environment(account="123456789012", region="eu-west-1"))
    application = codedeploy.ServerApplication.from_server_application_name(stack, "A", "updraft-dev-dags")
    group = codedeploy.ServerDeploymentGroup.from_server_deployment_group_attributes(
        stack, "G", application=application, deployment_group_name="updraft-dev-bastion"
    )
    GitHubRole(
        stack,
        "GitHub",
        repository="acme/dags",
        config=load_environment("dev"),
        group=group,
        bundles=s3.Bucket.from_bucket_name(stack, "B", "bundles"),
    )
    return dict(app.synth().get_stack_by_name("S").template["Resources"])


def properties(resources: dict[str, Any], resource_type: str) -> dict[str, Any]:
    [found] = [item["Properties"] for item in resources.values() if item["Type"] == resource_type]
    return dict(found)


def test_only_this_repositorys_jobs_in_this_github_environment_get_the_role(role: dict[str, Any]) -> None:
    [statement] = properties(role, "AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    # Every condition is an exact one: StringLike would let a repository's name stand for others.
    assert statement["Condition"] == {
        "StringEquals": {
            f"{ISSUER}:aud": "sts.amazonaws.com",
            f"{ISSUER}:sub": "repo:acme/dags:environment:dev",
        }
    }
    provider = statement["Principal"]["Federated"]["Fn::Join"][1]
    assert provider[-1] == f":iam::123456789012:oidc-provider/{ISSUER}"


def test_role_may_push_a_bundle_and_nothing_else(role: dict[str, Any]) -> None:
    allowed: dict[str, str] = {}
    for statement in properties(role, "AWS::IAM::Policy")["PolicyDocument"]["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        allowed |= dict.fromkeys(actions, statement["Resource"]["Fn::Join"][1][-1])
    assert allowed == {
        "s3:PutObject": ":s3:::bundles/*.zip",
        "codedeploy:RegisterApplicationRevision": ":codedeploy:eu-west-1:123456789012:application:updraft-dev-dags",
        "codedeploy:CreateDeployment": ":codedeploy:eu-west-1:123456789012:deploymentgroup:updraft-dev-dags/updraft-dev-bastion",
        "codedeploy:GetDeployment": ":codedeploy:eu-west-1:123456789012:deploymentgroup:updraft-dev-dags/updraft-dev-bastion",
        "codedeploy:GetDeploymentConfig": ":deploymentconfig:CodeDeployDefault.AllAtOnce",
    }


@pytest.mark.parametrize("repository", ["acme", "acme/", "acme/*", "*/dags", "acme/dags:ref", "acme/da gs"])
def test_what_is_no_repository_is_refused(tmp_path: Path, repository: str) -> None:
    text = (ENVIRONMENTS / "dev.toml").read_text()
    (tmp_path / "mine.toml").write_text(f'{text}\n[dags]\ngithub_repository = "{repository}"\n')
    with pytest.raises(ConfigError, match=r"environments/mine.toml: dags.github_repository: "):
        load_environment("mine", tmp_path)

"""Pins what the account relies on in the emulator: a new version of it has to be looked at before it is taken."""

import inspect
import json
import string
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ministack import app  # type: ignore[import-untyped]
from ministack.core import iam_actions, iam_evaluator, lambda_runtime, persistence, router  # type: ignore[import-untyped]
from ministack.services import cloudformation, ec2, iam, lambda_svc, ssm, sts  # type: ignore[import-untyped]
from ministack.services.cloudformation import changesets, handlers, helpers, provisioners, stacks  # type: ignore[import-untyped]

from local.account import patches
from local.account.resources.shapes import InvalidPropertiesError, to_api

PRIVATE = [
    (app, "SERVICE_HANDLERS"),
    (app, "_MAIN_LOOP"),
    (app, "_build_persistence_save_dict"),
    (persistence, "save_all"),
    (router, "_KNOWN_AWS_SERVICE_NAMES"),
    (ssm, "_PUBLIC_AMI_PARAMETERS"),
    (ec2, "_ACTION_MAP"),
    (ec2, "_instances"),
    (provisioners, "_RESOURCE_HANDLERS"),
    (provisioners, "_sm_secret_string"),
    (stacks, "_runs_on_worker_thread"),
    (stacks, "_deploy_stack_async"),
    (stacks, "_create_stack_task_in_region"),
    (changesets, "_track_change_set_execution"),
    (changesets, "_find_change_set"),
    (handlers, "_ACTION_HANDLERS"),
    (helpers, "_p"),
    (app, "AUTH"),
    (app, "_authenticate_only"),
    (app, "pin_request_origin"),
    (iam_actions, "SERVICE_TO_IAM_NAMESPACE"),
    (iam_actions, "extract_iam_action"),
    (iam_actions, "extract_resource_arn"),
    (iam_evaluator, "enforce"),
    (iam_evaluator, "resolve_principal"),
    (iam_evaluator, "_action_matches"),
    (iam_evaluator, "_resource_matches"),
    (iam_evaluator, "_gather_role_policies"),
    (iam_evaluator, "_role_name_from_assumed_arn"),
    (lambda_runtime, "execution_credentials"),
    (lambda_svc, "execution_credentials"),
    (iam, "_roles"),
    (sts, "_sessions"),
    (cloudformation, "_stacks"),
    (cloudformation, "_change_sets"),
]


def test_emulator_has_the_version_that_the_patches_were_made_for() -> None:
    assert version("ministack") == "1.5.33"


@pytest.mark.parametrize(("module", "name"), PRIVATE, ids=[name for _, name in PRIVATE])
def test_private_name_is_there(module: Any, name: str) -> None:
    assert hasattr(module, name)


def test_resource_handlers_have_the_signatures_that_ours_have() -> None:
    create = provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"]["create"]
    assert list(inspect.signature(create).parameters) == ["logical_id", "props", "stack_name"]
    assert "update_with_logical_id" in inspect.getsource(provisioners._update_resource)


@given(
    length=st.integers(min_value=4, max_value=100),
    excluded=st.text(alphabet=string.ascii_letters + string.punctuation, max_size=20),
    plain=st.booleans(),
)
def test_generated_password_follows_its_rules(length: int, excluded: str, plain: bool) -> None:
    rules = {"PasswordLength": length, "ExcludeCharacters": excluded, "ExcludePunctuation": plain}
    password = patches.random_password(rules)
    assert len(password) == length
    assert not set(password) & set(excluded)
    assert not plain or password.isalnum()


def test_generated_secret_fills_its_template() -> None:
    rules = {
        "SecretStringTemplate": '{"username": "admin"}',
        "GenerateStringKey": "password",
        "PasswordLength": 24,
    }
    secret = json.loads(patches.secret_string({"GenerateSecretString": rules}))
    assert secret["username"] == "admin"
    assert len(secret["password"]) == 24


def test_properties_become_parameters_by_the_api_model() -> None:
    props = {
        "Family": "f",
        "Cpu": 256,
        "ContainerDefinitions": [{"Name": "a", "Image": "i", "Essential": "true", "StopTimeout": "30"}],
    }
    assert to_api("ecs", "RegisterTaskDefinition", props) == {
        "family": "f",
        "cpu": "256",
        "containerDefinitions": [{"name": "a", "image": "i", "essential": True, "stopTimeout": 30}],
    }


@pytest.mark.parametrize(
    ("props", "reason"),
    [
        ({"Family": "f", "ContainerDefinitions": [], "Colour": "red"}, "unknown property Colour"),
        ({"ContainerDefinitions": [{"Nmae": "a"}]}, "unknown property ContainerDefinitions.Nmae"),
        ({"ContainerDefinitions": []}, 'Missing required parameter in input: "family"'),
    ],
)
def test_property_that_the_api_does_not_know_is_refused(props: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidPropertiesError, match=reason):
        to_api("ecs", "RegisterTaskDefinition", props)


def test_both_apis_of_sagemaker_lead_to_one_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_KNOWN_AWS_SERVICE_NAMES", frozenset({"sagemaker"}))
    scope = "Credential=000000000000/20260101/us-east-1/sagemaker/aws4_request"
    headers = {"host": "127.0.0.1:4566", "authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host"}
    calls = (
        ("/endpoints/flights/invocations", headers),
        ("/", headers | {"x-amz-target": "SageMaker.CreateEndpoint"}),
    )
    for path, sent in calls:
        assert router.detect_service("POST", path, sent, {}) == "sagemaker"

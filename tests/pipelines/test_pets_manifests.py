"""The manifests of the application on EKS are what Kubernetes' published models know, no more and no less."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from ops.bootstrap import KUBERNETES, ROOT, ensure_environment, environment_python

RENDER = """
import json, sys
sys.path.insert(0, "dags")
from pets import eks
made = [eks.deployment(colour="blue", image="registry/pets:tag", count=2), eks.service(colour="blue")]
print(json.dumps(made))
"""
# Reads each manifest into the client's model, which refuses what is missing or out of its values, and writes it back:
# what the model doesn't know is lost.
READ = """
import json, sys
from kubernetes.client import ApiClient
api, kinds = ApiClient(), {"Deployment": "V1Deployment", "Service": "V1Service"}
for manifest in json.load(sys.stdin):
    try:
        model = api.deserialize(json.dumps(manifest), kinds[manifest["kind"]], "application/json")
        print(json.dumps(api.sanitize_for_serialization(model)))
    except ValueError as error:
        print(json.dumps({"refused": str(error)}))
"""


def read_back(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [ensure_environment(KUBERNETES), "-c", READ],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    ran = subprocess.run(
        [environment_python("airflow"), "-c", RENDER],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "AIRFLOW_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    made: list[dict[str, Any]] = json.loads(ran.stdout.strip().splitlines()[-1])
    return made


def test_manifests_are_kubernetes_own(manifests: list[dict[str, Any]]) -> None:
    assert read_back(manifests) == manifests


def test_a_mistake_would_be_seen(manifests: list[dict[str, Any]]) -> None:
    deployment, service = manifests
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    del service["spec"]["ports"][0]["port"]
    read, refused = read_back([deployment, service])
    assert read != deployment
    assert "port" in refused["refused"]


def test_pods_have_no_privileges_and_the_service_selects_its_colour(manifests: list[dict[str, Any]]) -> None:
    deployment, service = manifests
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()

"""Any environment synthesizes or explains itself; a feature that is off leaves nothing; nothing clashes."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import app as application
from stacks.config import ConfigError, parse_environment
from tests.stacks.assemblies import (
    Template,
    Values,
    changed,
    new_app,
    resources,
    synthesize,
    types,
    values_of,
)

DEV = values_of("dev")
EXISTING = {
    "existing": {
        "vpc_id": "vpc-0123456789abcdef0",
        "availability_zones": ["us-east-1a", "us-east-1b"],
        "private_subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "isolated_subnet_ids": ["subnet-0123456789abcdef2", "subnet-0123456789abcdef3"],
    }
}
ON_EC2 = {
    "cpu": 2048, "memory_mib": 8192, "concurrency": 8, "min": 0, "max": 4, "capacity": "EC2",
    "instance_type": "m7g.xlarge",
}  # fmt: skip
# What can be on or off: the change that turns it on, in an environment that is as small as can be.
SMALL = changed(
    DEV,
    topology=None,
    sleep=None,
    services__={},
    broker__={"kind": "sqs"},
    tracking__={"enabled": False},
    warehouse__={"enabled": False},
    network__={"nat": "gateway"},
)
FEATURES: dict[str, Callable[[Values], Values]] = {
    "existing network": lambda v: changed(v, network__=EXISTING),
    "redis": lambda v: changed(v, broker__={"kind": "redis", "multi_az": True}),
    "merged": lambda v: changed(
        v, topology="merged", services={"control_plane": {"cpu": 1024, "memory_mib": 4096}}
    ),
    "instances": lambda v: changed(v, workers={"big": ON_EC2}),
    "tracking": lambda v: changed(v, tracking={"enabled": True}),
    "openlineage": lambda v: changed(v, tracking={"openlineage_url": "https://lineage.example/api/v2"}),
    "warehouse": lambda v: changed(v, warehouse={"enabled": True}),
    "pets": lambda v: changed(v, pets={"platform": "ecs"}),
    "boundary": lambda v: changed(v, permissions_boundary="Edge", bootstrap_qualifier="mine"),
    "budget": lambda v: changed(v, workflows={"alarm_email": "owner@example.com"}),
    "kept": lambda v: changed(v, keep_data_on_destroy=True, hardened=True),
    "tags": lambda v: changed(v, tags={"cost-centre": "4711"}),
    "spark": lambda v: changed(v, spark={"engine": "emr-serverless"}),
}
# The types that only a feature brings.
BROUGHT = {
    "redis": {"AWS::ElastiCache::ReplicationGroup", "AWS::ElastiCache::SubnetGroup"},
    "instances": {
        "AWS::AutoScaling::AutoScalingGroup",
        "AWS::EC2::LaunchTemplate",
        "AWS::ECS::CapacityProvider",
    },
    "budget": {"AWS::Budgets::Budget"},
    "spark": {"AWS::EMRServerless::Application"},
    "pets": {"AWS::CodeBuild::Project", "AWS::ECR::Repository"},
}

# The types whose name only counts within a cluster, namespace or role, and one whose "family" is no name.
NAMED_WITHIN = {
    "AWS::IAM::Policy",
    "AWS::ECS::Service",
    "AWS::ServiceDiscovery::Service",
    "AWS::RDS::DBParameterGroup",
}
# The properties by which AWS knows a resource in an account.
NAMING = {
    "AlarmName", "ApplicationName", "BucketName", "ClusterName", "DBInstanceIdentifier", "DashboardName",
    "DeploymentGroupName", "Family", "FunctionName", "LaunchTemplateName", "LogGroupName",
    "ModelPackageGroupName", "Name", "PolicyName", "QueueName", "ReplicationGroupId", "RoleName", "TopicName",
}  # fmt: skip


def any_value() -> st.SearchStrategy[Any]:
    """What people and programs put into files, right or wrong."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    )


def places(values: Values, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of nested values, with its way."""
    found = []
    for key, value in values.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += places(value, (*prefix, key))
    return found


EVERYTHING = changed(
    values_of("prod"), network=EXISTING, tags={"a": "b"}, workers={"big": ON_EC2}, topology="merged"
)


@settings(max_examples=400, deadline=None)
@given(
    base=st.sampled_from([DEV, SMALL, values_of("prod"), EVERYTHING]),
    edits=st.lists(st.tuples(st.integers(min_value=0), any_value()), min_size=1, max_size=4),
)
def test_any_edit_is_accepted_or_explained(base: Values, edits: list[tuple[int, Any]]) -> None:
    values = changed(base)
    for number, value in edits:
        ways = places(values)
        if not ways:
            break
        way = ways[number % len(ways)]
        section = values
        for key in way[:-1]:
            section = section[key]
        section[way[-1]] = value
    assert_accepted_or_explained(values)


def assert_accepted_or_explained(values: Values) -> None:
    explanation = None
    try:
        config = parse_environment("mine", values)
    except ConfigError as error:
        explanation = str(error)
    if explanation is None:
        assert config.zones
    else:
        assert explanation.strip()
        assert all(len(line) > 10 for line in explanation.splitlines())


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=12), any_value(), max_size=6))
def test_any_mapping_is_accepted_or_explained(values: Values) -> None:
    assert_accepted_or_explained(values)


def pairwise_cover(names: list[str]) -> list[frozenset[str]]:
    """Few sets of features, so that every two of them are both on, both off, and each alone, in one at least."""
    wanted = {
        (one, other, *states)
        for one, other in itertools.combinations(names, 2)
        for states in itertools.product((True, False), repeat=2)
    }
    chosen: list[frozenset[str]] = []
    candidates = [
        frozenset(name for bit, name in enumerate(names) if number >> bit & 1)
        for number in range(2 ** len(names))
    ]

    def covered(features: frozenset[str]) -> set[tuple[Any, ...]]:
        return {case for case in wanted if ((case[0] in features), (case[1] in features)) == case[2:]}

    while wanted:
        best = max(candidates, key=lambda features: len(covered(features)))
        wanted -= covered(best)
        chosen.append(best)
    return chosen


COVER = pairwise_cover(list(FEATURES))


@pytest.mark.synth
@pytest.mark.parametrize("features", COVER, ids=lambda features: "+".join(sorted(features)) or "nothing")
def test_every_pair_of_features_synthesizes_and_what_is_off_leaves_nothing(features: frozenset[str]) -> None:
    values = SMALL
    for name in sorted(features):
        values = FEATURES[name](values)
    found = synthesize("mine", values)
    counts = types(found)
    for name, brought in BROUGHT.items():
        assert (brought <= set(counts)) == (name in features), name
        assert bool(brought & set(counts)) == (name in features), name
    assert ("AWS::EC2::VPC" in counts) == ("existing network" not in features)
    assert ("tracking" in found) == ("tracking" in features)
    assert ("AWS::SQS::Queue" in counts) == ("redis" not in features)
    assert ("AIRFLOW__OPENLINEAGE__" in json.dumps(found)) == ("openlineage" in features)
    assert ("pets" in found) == ("pets" in features)
    assert ("MLFLOW_TRACKING_" in json.dumps(found)) == ("tracking" in features)
    secrets = [item["Properties"].get("Name") for _, item in resources(found, "AWS::SecretsManager::Secret")]
    assert ("updraft/mine/connections/warehouse" in secrets) == ("warehouse" in features)
    assert ("WAREHOUSE" in json.dumps(found)) == ("warehouse" in features)
    services = {item["Properties"]["ServiceName"] for _, item in resources(found, "AWS::ECS::Service")}
    control_plane = {"webserver", "scheduler", "dag-processor", "triggerer"}
    merged = "merged" in features
    assert services - {"mlflow"} == ({"control-plane"} if merged else control_plane)
    roles = [item["Properties"] for _, item in resources(found, "AWS::IAM::Role")]
    assert all(("PermissionsBoundary" in role) == ("boundary" in features) for role in roles)
    assert_groups_are_used(found)


@pytest.mark.synth
@pytest.mark.parametrize(
    ("pets", "brought", "told"),
    [
        ({}, set(), {"none"}),
        ({"platform": "ecs"}, {"AWS::CodeBuild::Project", "AWS::ECR::Repository"}, {"ecs", "build"}),
        (
            {"platform": "eks", "eks_cluster": "animals", "eks_namespace": "zoo"},
            {"AWS::CodeBuild::Project", "AWS::ECR::Repository"},
            {"eks", "build", "animals", "zoo"},
        ),
    ],
)
def test_pets_have_what_their_platform_needs_and_nothing_else(
    pets: Values, brought: set[str], told: set[str]
) -> None:
    found = synthesize("mine", changed(SMALL, pets=pets))
    counts = types({"pets": found["pets"]})
    assert {kind for kind in counts if kind in BROUGHT["pets"]} == brought
    assert ("AWS::ServiceDiscovery::Service" in counts) == (pets.get("platform") == "ecs")
    assert "AWS::ECS::Service" not in counts
    [settings] = [item["Properties"] for _, item in resources({"p": found["pets"]}, "AWS::SSM::Parameter")]
    assert settings["Name"] == "/updraft/mine/pets"
    text = json.dumps(settings["Value"])
    assert all(word in text for word in told)
    assert ("build" in text) == bool(brought)
    # The application's build reads what the DAG writes, and nothing else of the data bucket.
    statements = json.dumps(found["pets"])
    assert ("/pets/*" in statements) == bool(brought)
    assert_groups_are_used(found)


def assert_groups_are_used(found: dict[str, Template]) -> None:
    """No security group is left without anything in it: one of a feature that is off would be."""
    text = json.dumps({name: template for name, template in found.items() if name != "network"})
    inside = json.dumps([item for _, item in resources(found, "AWS::EC2::Instance")])
    for logical_id, _ in resources(found, "AWS::EC2::SecurityGroup"):
        assert logical_id in text or logical_id in inside, logical_id


@pytest.mark.synth
def test_two_projects_and_two_environments_stand_side_by_side_in_one_account() -> None:
    app = new_app()
    rich = changed(FEATURES["instances"](FEATURES["tracking"](SMALL)), broker__={"kind": "sqs"})
    redis = changed(DEV, workers={"big": ON_EC2})
    for name, project, values in (
        ("one", "alpha", rich),
        ("two", "alpha", redis),
        ("one", "beta", rich),
        ("two", "alpha-one", redis),
    ):
        application.build(app, parse_environment(name, changed(values, project=project)))
    names = Counter(
        (item["Type"], key, value)
        for stack in app.synth().stacks
        for item in stack.template["Resources"].values()
        if item["Type"] not in NAMED_WITHIN
        for key, value in item.get("Properties", {}).items()
        if key in NAMING and isinstance(value, str)
    )
    assert len(names) > 40
    assert {name: count for name, count in names.items() if count > 1} == {}

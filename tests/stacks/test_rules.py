"""No environment has a finding, a waiver waives something, and seeded misconfigurations are caught."""

from functools import cache
from pathlib import Path

import pytest

import app as application
from benchmarks.mutations import MUTATIONS
from benchmarks.mutations.runner import run
from benchmarks.mutations.runner import values_of as base_values
from stacks import rules
from stacks.aws_rules.quotas import max_connections
from stacks.config import ROOT, parse_environment
from stacks.linting import lint
from stacks.rules import Violation, Waiver, unwaived
from stacks.security_doc import render
from tests.stacks.assemblies import changed, new_app, new_folder, values_of
from tests.stacks.test_environments import EXISTING, ON_EC2

pytestmark = pytest.mark.synth
# Those that differ most: a grant too many, one too few and one that never applies, the network, Fargate, data, delivery, an environment's file.
IN_EVERY_RUN = (
    "role-whole-service",
    "passrole-without-execution-role",
    "list-granted-on-a-name",
    "open-port",
    "no-way-to-the-database",
    "stop-timeout",
    "secret-key-that-is-not-there",
    "worker-as-a-service",
    "public-bucket",
    "bastion-without-tag",
    "bastion-id-in-another-stack",
    "fargate-cpu",
)
VARIANTS = {
    "dev": values_of("dev"),
    "prod": values_of("prod"),
    "separate": base_values("separate"),
    "sqs": base_values("sqs"),
    "instances": changed(values_of("prod"), workers={"big": ON_EC2}, pets={"platform": "ecs"}),
    "merged": changed(
        base_values("separate"),
        topology="merged",
        network__=EXISTING,
        services__={"control_plane": {"cpu": 1024, "memory_mib": 4096}},
    ),
}


@cache
def checked(name: str) -> tuple[Path, list[Violation]]:
    """The assembly of an environment and what is found in it."""
    config = parse_environment(name, VARIANTS[name])
    assembly = new_folder()
    app = new_app(assembly)
    application.build(app, config)
    app.synth()
    return assembly, rules.check(app, assembly, hardened=config.hardened)


@pytest.mark.parametrize("name", VARIANTS)
def test_environment_has_no_finding(name: str) -> None:
    assert [str(violation) for violation in checked(name)[1]] == []


@pytest.mark.parametrize("name", ["dev", "prod", "instances"])
def test_templates_pass_cfn_lint(name: str) -> None:
    assert lint(list(checked(name)[0].glob("*.template.json")), "us-east-1") == []


def test_every_waiver_stands_at_one_resource_and_gives_a_reason() -> None:
    waivers = list(rules.waivers(checked("prod")[0]))
    assert waivers
    for waiver in waivers:
        assert waiver.path.count("/") >= 1, f"{waiver} waives a whole stack"
        assert len(waiver.reason.split()) >= 4, f"{waiver} gives no reason"


def test_packages_of_functions_run_on_either_architecture() -> None:
    compiled = [path.name for path in checked("dev")[0].glob("asset.*/**/*.so")]
    assert compiled == []


def test_security_page_is_current() -> None:
    page = render({name: checked(name)[0] for name in ("dev", "prod")})
    assert page == (ROOT / "docs" / "security.md").read_text(), "run ./updraft security-doc"


@pytest.mark.parametrize("name", IN_EVERY_RUN)
def test_seeded_misconfiguration_is_caught(name: str) -> None:
    [mutation] = [mutation for mutation in MUTATIONS if mutation.name == name]
    [outcome] = run([mutation])
    assert outcome.caught_by is not None, mutation.fails


def test_mutations_have_names_of_their_own() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) == len(set(names))
    assert len(names) >= 60


def test_a_finding_needs_a_waiver_at_its_own_path() -> None:
    found = [Violation("stack/A/Resource", "X-1[Resource::*]", "")]
    assert list(unwaived(found, [Waiver("stack/A/Resource", "X-1", "why")])) == []
    assert list(unwaived(found, [Waiver("stack/A/Resource", "X-1[Resource::*]", "why")])) == []
    for other in (Waiver("stack/A", "X-1", "why"), Waiver("stack/A/Resource", "X-1[Action::*]", "why")):
        assert found[0] in unwaived(found, [other])


def test_a_waiver_that_waives_nothing_is_a_finding() -> None:
    [stale] = unwaived([], [Waiver("stack/A/Resource", "X-1", "why")])
    assert "remove the waiver" in stale.what
    # What only a hardened environment is asked may be waived in every environment.
    assert list(unwaived([], [Waiver("stack/A/Resource", "NIST-1", "why")], hardened=False)) == []


@pytest.mark.parametrize(
    ("instance_class", "lowest", "highest"), [("db.t4g.micro", 80, 112), ("db.m7g.large", 700, 901)]
)
def test_max_connections_follow_the_memory(instance_class: str, lowest: int, highest: int) -> None:
    allowed = max_connections(instance_class)
    assert allowed is not None
    assert lowest <= allowed <= highest

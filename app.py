"""Chooses the environment (`-c environment=NAME`, default `local`) and builds its stacks in order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from stacks import rules
from stacks.airflow import AirflowStack
from stacks.config import ConfigError, EnvironmentConfig, load_environment
from stacks.delivery import DeliveryStack
from stacks.network import NetworkStack
from stacks.pets import PetsStack
from stacks.scaling import ScalingStack
from stacks.storage import StorageStack
from stacks.tracking import TrackingStack
from stacks.waivers import waive_each
from stacks.workflows import WorkflowsStack


def build(app: cdk.App, config: EnvironmentConfig) -> None:
    """Add every stack of an environment to the app; what reads from what is what is passed here."""
    prefix = config.prefix
    network = NetworkStack(app, f"{prefix}-network", config=config, **_options(config))
    storage = StorageStack(app, f"{prefix}-storage", config=config, network=network, **_options(config))
    data: dict[str, Any] = {"config": config, "network": network, "storage": storage}
    airflow = AirflowStack(app, f"{prefix}-airflow", **data, **_options(config))
    delivery = DeliveryStack(app, f"{prefix}-delivery", **data, **_options(config))
    scaling = ScalingStack(app, f"{prefix}-scaling", airflow=airflow, **data, **_options(config))
    workflows = WorkflowsStack(app, f"{prefix}-workflows", airflow=airflow, **data, **_options(config))
    stacks = [network, storage, airflow, delivery, scaling, workflows]
    if config.tracking.enabled:
        stacks.append(TrackingStack(app, f"{prefix}-tracking", airflow=airflow, **data, **_options(config)))
    if config.pets is not None:
        stacks.append(PetsStack(app, f"{prefix}-pets", airflow=airflow, **data, **_options(config)))
    for stack in stacks:
        _finish(stack, config)


def _options(config: EnvironmentConfig) -> dict[str, Any]:
    """What every stack is made with; each wants a synthesizer of its own."""
    return {
        "env": cdk.Environment(account=config.account, region=config.region),
        "synthesizer": cdk.DefaultStackSynthesizer(qualifier=config.bootstrap_qualifier),
    }


def _finish(stack: cdk.Stack, config: EnvironmentConfig) -> None:
    """The tags of everything in a stack, and the boundary of its roles."""
    tags = {"updraft:project": config.project, "updraft:environment": config.environment, **config.tags}
    for key, value in tags.items():
        cdk.Tags.of(stack).add(key, value)
    if config.permissions_boundary is not None:
        boundary = iam.ManagedPolicy.from_managed_policy_name(
            stack, "PermissionsBoundary", config.permissions_boundary
        )
        iam.PermissionsBoundary.of(stack).apply(boundary)
    waive_each(
        stack,
        "AWS::IAM::Policy",
        "It belongs to one role and goes with it",
        "NIST.800.53.R5-IAMNoInlinePolicy",
    )


def main() -> None:
    """Synthesize one environment; a mistake in its file ends with one line for each, and exit code 2."""
    app = cdk.App()
    try:
        config = load_environment(app.node.try_get_context("environment") or "local")
        build(app, config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    assembly = Path(app.synth().directory)
    violations = rules.check(app, assembly, hardened=config.hardened)
    for violation in violations:
        print(violation, file=sys.stderr)
    if violations:
        print(
            f"{len(violations)} findings in {config.prefix}: mend them, or waive them where they are",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()

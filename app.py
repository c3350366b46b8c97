"""Chooses the environment (`-c environment=NAME`, default `local`) and builds its stacks in order."""

from __future__ import annotations

import sys

import aws_cdk as cdk

from stacks.airflow import AirflowStack
from stacks.config import ConfigError, EnvironmentConfig, load_environment
from stacks.delivery import DeliveryStack
from stacks.network import NetworkStack
from stacks.scaling import ScalingStack
from stacks.storage import StorageStack
from stacks.tracking import TrackingStack
from stacks.workflows import WorkflowsStack


def build(app: cdk.App, config: EnvironmentConfig) -> None:
    """Add every stack of an environment to the app; what reads from what is what is passed here."""
    env = cdk.Environment(account=config.account, region=config.region)
    prefix = config.prefix
    network = NetworkStack(app, f"{prefix}-network", config=config, env=env)
    storage = StorageStack(app, f"{prefix}-storage", config=config, network=network, env=env)
    airflow = AirflowStack(app, f"{prefix}-airflow", config=config, network=network, storage=storage, env=env)
    DeliveryStack(app, f"{prefix}-delivery", config=config, network=network, storage=storage, env=env)
    ScalingStack(
        app, f"{prefix}-scaling", config=config, network=network, storage=storage, airflow=airflow, env=env
    )
    WorkflowsStack(
        app, f"{prefix}-workflows", config=config, network=network, storage=storage, airflow=airflow, env=env
    )
    if config.tracking.enabled:
        TrackingStack(
            app,
            f"{prefix}-tracking",
            config=config,
            network=network,
            storage=storage,
            airflow=airflow,
            env=env,
        )
    cdk.Tags.of(app).add("updraft:project", config.project)
    cdk.Tags.of(app).add("updraft:environment", config.environment)
    for key, value in config.tags.items():
        cdk.Tags.of(app).add(key, value)


def main() -> None:
    """Synthesize one environment; a mistake in its file ends with one line for each, and exit code 2."""
    app = cdk.App()
    try:
        config = load_environment(app.node.try_get_context("environment") or "local")
        build(app, config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    app.synth()


if __name__ == "__main__":
    main()

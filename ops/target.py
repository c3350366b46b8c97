"""Where an environment lives: AWS with the user's own credentials, or the emulated account of this laptop.

Everything else in the command line works through a Target and so does the same on both.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.paths import LocalPaths
from ops.airflow_api import AirflowApi
from ops.bootstrap import ROOT
from ops.console import OperatorError
from ops.own_account import ready
from stacks.config import ConfigError, EnvironmentConfig, load_environment

STACKS = ("network", "storage", "airflow", "delivery", "scaling", "workflows", "tracking", "pets")

# Clients may be shared by threads; the session that makes them may not.
_making_a_client = threading.Lock()


def local_paths() -> LocalPaths:
    """The laptop's state directory in this checkout."""
    return LocalPaths(ROOT / ".updraft" / "local")


@dataclass(frozen=True)
class Target:
    """One environment, its configuration and its account."""

    config: EnvironmentConfig

    @property
    def name(self) -> str:
        return self.config.environment

    @property
    def prefix(self) -> str:
        return self.config.prefix

    @property
    def is_local(self) -> bool:
        return self.config.is_emulated

    @cached_property
    def session(self) -> boto3.Session:
        if self.is_local:
            paths = local_paths()
            # Another checkout's account would take this one's keys too.
            ready(paths)
            return boto3.Session(
                aws_access_key_id=paths.access_key_id,
                aws_secret_access_key=paths.secret_access_key,
                region_name=paths.region,
            )
        return boto3.Session(region_name=self.config.region)

    def client(self, service: str) -> Any:
        """A boto3 client of this environment's account."""
        with _making_a_client:
            return self.session.client(
                service,
                endpoint_url=local_paths().endpoint_url if self.is_local else None,
                config=Config(
                    retries={"mode": "standard", "max_attempts": 5},
                    connect_timeout=5,
                    read_timeout=60,
                    # None stands for those of the environment, and no proxy reaches this machine's loopback.
                    proxies={} if self.is_local else None,
                ),
            )

    def recorded_permissions(self) -> dict[str, Any] | None:
        """What roles did in the emulated account; None for an account of AWS, which refuses by itself."""
        from ops.permissions import recorded

        return recorded() if self.is_local else None

    @cached_property
    def outputs(self) -> dict[str, dict[str, str]]:
        """Stack outputs by the stack's short name: `outputs["airflow"]["ClusterName"]`.

        Raises OperatorError when nothing is deployed or the account can't be reached.
        """
        if "airflow" not in self.outputs_found:
            how = f"./updraft deploy --environment {self.name}"
            raise OperatorError(f"'{self.name}' is not deployed; deploy it with: {how}")
        return self.outputs_found

    @cached_property
    def outputs_found(self) -> dict[str, dict[str, str]]:
        """The same of an environment of which only some stacks are there: one whose destruction was cut off.

        Raises OperatorError when the account can't be reached.
        """
        try:
            pages = self.client("cloudformation").get_paginator("describe_stacks").paginate()
            stacks = {stack["StackName"]: stack for page in pages for stack in page["Stacks"]}
        except (BotoCoreError, ClientError) as error:
            hint = " Start it with: ./updraft up" if self.is_local else " Check your AWS credentials."
            raise OperatorError(f"the account of '{self.name}' does not answer: {error}.{hint}") from error
        return {
            short: {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
            for short in STACKS
            if (stack := stacks.get(f"{self.prefix}-{short}")) is not None
        }

    def output(self, stack: str, key: str) -> str:
        """One stack output; raises OperatorError naming both when it is missing."""
        try:
            return self.outputs[stack][key]
        except KeyError as error:
            raise OperatorError(
                f"stack {self.prefix}-{stack} has no output {key}: deploy '{self.name}' again"
            ) from error

    def secret(self, arn: str) -> str:
        """The current text of a secret."""
        return str(self.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])

    def credentials(self) -> dict[str, dict[str, str]]:
        """`username` and `password` of each UI that asks for a log-in."""
        secrets = {
            "webserver": self.outputs["airflow"].get("AdminSecretArn"),
            "flower": self.outputs["airflow"].get("FlowerSecretArn"),
            "mlflow": self.outputs.get("tracking", {}).get("TrackingSecretArn"),
        }
        return {name: json.loads(self.secret(arn)) for name, arn in secrets.items() if arn}

    def airflow(self, base_url: str = "http://127.0.0.1:8080") -> AirflowApi:
        """Airflow's API as the administrator; on AWS through the tunnel on the same address."""
        admin = self.credentials()["webserver"]
        return AirflowApi(base_url, username=admin["username"], password=admin["password"])


def target_of(environment: str) -> Target:
    """Load an environment; raises OperatorError with one line for each mistake in its file."""
    from local.certificates import ensure_ca

    # Environments of the emulated account name this authority; it is made once, and of no use to others.
    ensure_ca(local_paths())
    try:
        return Target(load_environment(environment))
    except ConfigError as error:
        raise OperatorError(str(error)) from error

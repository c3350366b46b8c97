"""Where an environment lives: AWS with the user's own credentials, or the emulated account of this laptop.

Everything else in the command line works through a Target and so does the same on both.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import processes
from local.paths import LocalPaths
from ops.airflow_api import AirflowApi
from ops.aws_errors import in_words
from ops.bootstrap import ROOT
from ops.console import OperatorError
from ops.own_account import ready
from stacks.config import ConfigError, EnvironmentConfig, load_environment

STACKS = ("network", "storage", "airflow", "delivery", "scaling", "workflows", "tracking", "pets")

# The variable for an environment of AWS whose tunnel is not on the default port.
AIRFLOW_URL = "UPDRAFT_AIRFLOW_URL"
DEFAULT_AIRFLOW_URL = "http://127.0.0.1:8080"

# Clients may be shared by threads; the session that makes them may not.
_making_a_client = threading.Lock()


def local_paths() -> LocalPaths:
    """The laptop's state directory in this checkout."""
    return LocalPaths(ROOT / ".updraft" / "local")


@dataclass(frozen=True)
class Target:
    """One environment, its configuration and its account; `profile` is one of AWS's configuration on this machine, None
    for the credentials that the shell has."""

    config: EnvironmentConfig
    profile: str | None = None

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
        return boto3.Session(profile_name=self.profile, region_name=self.config.region)

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
            if self.is_local:
                raise OperatorError(f"'{self.name}' is not deployed; deploy it with: {how}")
            raise OperatorError(
                f"'{self.name}' is not deployed in {self.config.region} of the account that these credentials are of; "
                f"deploy it with: {how}, or choose others with AWS_PROFILE (for the source of `promote`, --from-profile)"
            )
        return self.outputs_found

    @cached_property
    def outputs_found(self) -> dict[str, dict[str, str]]:
        """The same of an environment of which only some stacks are there: one whose destruction was cut off.

        Raises OperatorError when the account can't be reached, or is not the one that the environment's file names.
        """
        try:
            self._require_account()
            pages = self.client("cloudformation").get_paginator("describe_stacks").paginate()
            stacks = {stack["StackName"]: stack for page in pages for stack in page["Stacks"]}
        except (BotoCoreError, ClientError) as error:
            hint = ". Start it with: ./updraft up" if self.is_local else ""
            raise OperatorError(
                f"the account of '{self.name}' does not answer: {in_words(error)}{hint}"
            ) from error
        return {
            short: {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
            for short in STACKS
            if (stack := stacks.get(f"{self.prefix}-{short}")) is not None
        }

    def _require_account(self) -> None:
        wanted = self.config.account
        if wanted is None or self.is_local:
            return
        came = self.client("sts").get_caller_identity()["Account"]
        if came != wanted:
            raise OperatorError(
                f"'{self.name}' is in account {wanted} (environments/{self.name}.toml), these credentials are of account "
                f"{came}: name a profile of {wanted}, with AWS_PROFILE=NAME before ./updraft or, for the source of "
                "`promote`, with --from-profile NAME; aws configure list-profiles shows the names"
            )

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

    def airflow(self) -> AirflowApi:
        """Airflow's API as the administrator; on AWS through the tunnel on the same port, or where UPDRAFT_AIRFLOW_URL
        says.

        Raises OperatorError rather than hand the password to somebody else.
        """
        url, hint = DEFAULT_AIRFLOW_URL, "is the platform up?"
        if not self.is_local:
            tunnel = f"./updraft tunnel --environment {self.name}"
            url, hint = _checked_url(os.environ.get(AIRFLOW_URL) or url), f"open the way to it with: {tunnel}"
            self.require_not_the_laptops(
                url,
                f"or forward another port ({tunnel} webserver --local-port 8081) and name it in the variable "
                f"{AIRFLOW_URL}=http://127.0.0.1:8081",
            )
        admin = self.credentials()["webserver"]
        return AirflowApi(url, username=admin["username"], password=admin["password"], hint=hint)

    def require_not_the_laptops(self, url: str, other_way: str = "") -> None:
        """Raises OperatorError where this checkout's own platform listens: a password of AWS is not for it."""
        from ops.engine import ACCOUNT

        paths, address = local_paths(), urlsplit(url)
        published = (paths.webserver_port, paths.flower_port, paths.mlflow_port)
        is_published = _is_loopback(address.hostname or "") and address.port in published
        if is_published and not self.is_local and processes.is_running(paths, ACCOUNT):
            raise OperatorError(
                f"at {url} is this laptop's own platform, which must not get the password of '{self.name}': "
                f"stop it with ./updraft down {other_way}".rstrip()
            )


def _checked_url(url: str) -> str:
    """Where a password may be sent: over TLS, or no further than this machine."""
    try:
        address = urlsplit(url)
        bare = address.hostname is not None and url.rstrip("/") == f"{address.scheme}://{address.netloc}"
        is_safe = address.scheme == "https" or (
            address.scheme == "http" and _is_loopback(address.hostname or "")
        )
        if bare and is_safe and "@" not in address.netloc and address.port != 0:
            return url.rstrip("/")
    except ValueError:
        pass  # a port that is no number, brackets that don't close
    raise OperatorError(
        f"{AIRFLOW_URL}: {url!r} is no address that the password may be sent to; allowed are http://127.0.0.1:PORT, as "
        "./updraft tunnel opens it, and https://HOST[:PORT], both without a path"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target_of(environment: str, *, profile: str | None = None) -> Target:
    """Load an environment; raises OperatorError with one line for each mistake in its file."""
    from local.certificates import ensure_ca

    # Environments of the emulated account name this authority; it is made once, and of no use to others.
    ensure_ca(local_paths())
    try:
        return Target(load_environment(environment), profile)
    except ConfigError as error:
        raise OperatorError(str(error)) from error

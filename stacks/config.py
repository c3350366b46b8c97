"""The typed environment: `environments/{name}.toml`, checked whole before anything is synthesized."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from stacks.sections import (
    Airflow,
    Broker,
    Dags,
    Database,
    Network,
    Pets,
    Services,
    Sleep,
    Spark,
    Tracking,
    Warehouse,
    Workflows,
)
from stacks.sizes import Section, Worker

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "environments"

# An emulated account: what happens there is on one machine, so nothing needs a way out of the network.
EMULATED_ACCOUNT = "000000000000"
CONTROL_PLANE = {"webserver", "scheduler", "dag_processor", "triggerer"}
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)

# Where new accounts don't have the zones a, b and c: those that they have.
ZONE_LETTERS = {"ap-northeast-1": "acd", "ca-central-1": "abd"}

# Hyphens only inside and only single, as RDS wants them; none in an environment's name, so that no two pairs of
# project and environment make the same prefix.
ProjectName = Annotated[str, StringConstraints(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=16)]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,15}$")]
# What a tuning job's name has room for beside the digest of its task: IAM and the reaper know jobs by the whole prefix.
PREFIX_CHARACTERS = 21
QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=32)]


class ConfigError(ValueError):
    """Every mistake of an environment file, one line each."""


class EnvironmentConfig(Section):
    """Everything in which two environments may differ."""

    environment: EnvironmentName
    project: ProjectName = "updraft"
    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")] | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    architecture: Literal["arm64", "x86_64"] = "arm64"
    bootstrap_qualifier: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,10}$")] | None = None
    permissions_boundary: Annotated[str, StringConstraints(pattern=r"^[\w+=,.@-]{1,128}$")] | None = Field(
        default=None, description="Name of a managed policy of the account, put on every role"
    )
    hardened: bool = Field(
        default=False, description="flow logs, access logs, insights; NIST 800-53 R5 besides AwsSolutions"
    )
    topology: Literal["separate", "merged"] = "separate"
    log_retention_days: int = 30
    health_check_interval_seconds: int = Field(default=30, ge=5, le=300)
    keep_data_on_destroy: bool = True
    execute_command: bool = Field(default=False, description="Whether people may run commands in containers")
    tags: dict[str, str] = Field(default_factory=dict)
    network: Network = Network()
    database: Database
    broker: Broker = Broker()
    services: Services
    workers: dict[QueueName, Worker] = Field(min_length=1)
    airflow: Airflow = Airflow()
    dags: Dags = Dags()
    sleep: Sleep = Sleep()
    workflows: Workflows = Workflows()
    tracking: Tracking = Tracking()
    spark: Spark = Spark()
    pets: Pets | None = None
    warehouse: Warehouse = Warehouse()

    @property
    def prefix(self) -> str:
        return f"{self.project}-{self.environment}"

    @property
    def ssm_prefix(self) -> str:
        return f"/{self.project}/{self.environment}"

    @property
    def is_emulated(self) -> bool:
        return self.account == EMULATED_ACCOUNT

    @property
    def bastion_is_nat(self) -> bool:
        return self.network.existing is None and self.network.nat == "instance"

    @property
    def has_worker_hosts(self) -> bool:
        return any(worker.capacity == "EC2" for worker in self.workers.values())

    @property
    def zones(self) -> list[str]:
        if self.network.existing is not None:
            return self.network.existing.availability_zones
        if self.network.availability_zone_names is not None:
            return self.network.availability_zone_names
        letters = ZONE_LETTERS.get(self.region, "abc")
        return [f"{self.region}{letter}" for letter in letters[: self.network.availability_zones]]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        mistakes = [
            *self._top_level_mistakes(),
            *self._network_mistakes(),
            *self._tracking_mistakes(),
            *self._service_mistakes(),
            *self._broker_mistakes(),
            *self._spark_mistakes(),
        ]
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _top_level_mistakes(self) -> Iterator[str]:
        if len(self.prefix) > PREFIX_CHARACTERS:
            yield (
                f"project: {self.prefix!r} (project and environment) has {len(self.prefix)} characters; names on "
                f"SageMaker have room for {PREFIX_CHARACTERS}, so shorten one of them"
            )
        if self.log_retention_days not in LOG_RETENTION_DAYS:
            allowed = ", ".join(map(str, LOG_RETENTION_DAYS))
            yield f"log_retention_days: {self.log_retention_days} is not one of {allowed}"
        for name, path in (("database", self.database.ca_bundle), ("broker", self.broker.ca_bundle)):
            if path is not None and not (ROOT / path).is_file():
                yield f"{name}.ca_bundle: {path} does not exist"
        for key in self.tags:
            if key.startswith(("aws:", "updraft:")):
                yield f"tags: {key!r} is reserved; choose a name without aws: or updraft:"
        if self.keep_data_on_destroy and self.database.backup_retention_days == 0:
            yield "database.backup_retention_days: 0 keeps no backup; keep_data_on_destroy = true needs at least 1"

    def _network_mistakes(self) -> Iterator[str]:
        if self.network.nat == "none" and not self.is_emulated:
            yield (
                'network.nat: "none" leaves the Lambdas without a way to AWS; choose "instance" (the cheapest), '
                '"gateway" or "gateway_per_az"'
            )
        for zone in self.network.existing.availability_zones if self.network.existing else ():
            if zone[:-1] != self.region:
                yield f"network.existing.availability_zones: {zone} is not in {self.region}"
        for zone in self.network.availability_zone_names or ():
            if not re.fullmatch(f"{self.region}[a-z]", zone):
                yield (
                    f"network.availability_zone_names: {zone} is no zone of {self.region}; see those of your "
                    f"account: aws ec2 describe-availability-zones --region {self.region}"
                )

    def _tracking_mistakes(self) -> Iterator[str]:
        url = self.tracking.openlineage_url
        # The security groups let HTTPS out and nothing else.
        if url is not None and not self.is_emulated and not re.match(r"^https://[^:/]+(:443)?(/|$)", url):
            yield f"tracking.openlineage_url: {url} can't be reached; it has to be https:// on port 443"

    def _service_mistakes(self) -> Iterator[str]:
        if "default" not in self.workers:
            yield f"workers: no queue 'default', came: {', '.join(self.workers)}"
        for queue, worker in self.workers.items():
            if worker.capacity == "EC2" and self.network.nat == "none":
                yield f'workers.{queue}.capacity: instances have no way out with network.nat = "none"'
            # Graviton families carry a g after their generation.
            if worker.instance_type is not None:
                arm = re.match(r"^[a-z]+\d+g", worker.instance_type) is not None
                if arm != (self.architecture == "arm64"):
                    yield f"workers.{queue}.instance_type: {worker.instance_type} is not {self.architecture}"
        if self.topology == "merged":
            if self.services.control_plane is None:
                yield (
                    'services.control_plane: missing; topology "merged" needs its size, such as '
                    "{ cpu = 1024, memory_mib = 4096 }"
                )
            for name in sorted(self.services.model_fields_set & CONTROL_PLANE):
                yield f'services.{name}: has no service of its own with topology "merged"; remove it'
        elif self.services.control_plane is not None:
            yield 'services.control_plane: only goes with topology "merged"'

    def _broker_mistakes(self) -> Iterator[str]:
        if self.broker.kind == "redis":
            return
        if self.services.flower is not None:
            yield (
                "services.flower: Flower sees nothing on SQS (no remote control, no events); "
                'remove the section or set broker.kind = "redis"'
            )
        for key in sorted(self.broker.model_fields_set & {"node_type", "multi_az", "ca_bundle"}):
            yield f"broker.{key}: SQS has none; remove it"

    def _spark_mistakes(self) -> Iterator[str]:
        if self.is_emulated and self.spark.engine in ("emr-serverless", "databricks"):
            yield (
                f'spark.engine: "{self.spark.engine}" can\'t reach the emulated account; choose "ecs" or "none"'
            )


def parse_environment(name: str, values: Mapping[str, object]) -> EnvironmentConfig:
    """Check the values of an environment; raises ConfigError with one line for each mistake."""
    if "environment" in values:
        raise ConfigError(f"environment: is the file's name, {name}; remove the key")
    try:
        return EnvironmentConfig.model_validate({"environment": name, **values})
    except ValidationError as error:
        lines = [line for mistake in error.errors() for line in _lines(mistake["loc"], mistake)]
        raise ConfigError("\n".join(lines)) from error


def load_environment(name: str, directory: Path = ENVIRONMENTS) -> EnvironmentConfig:
    """Read and check one environment; raises ConfigError with one line for each mistake."""
    path = directory / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in directory.glob("*.toml")))
        raise ConfigError(
            f"no environment '{name}': there are {known}. Copy one of them to environments/{name}.toml"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"environments/{path.name}: not TOML: {error}") from error
    try:
        return parse_environment(name, values)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"environments/{path.name}: {line}" for line in lines)) from error


def _lines(location: tuple[int | str, ...], mistake: object) -> list[str]:
    """One line for each thing that is wrong at a place: what, what came, what is allowed."""
    assert isinstance(mistake, dict)
    where = ".".join(
        part if isinstance(part, str) and part.isprintable() else repr(part) for part in location
    )
    if mistake["type"] == "extra_forbidden":
        return [f"{where}: unknown key"]
    if mistake["type"] == "missing":
        return [f"{where}: missing"]
    if mistake["type"] == "value_error":
        prefix = f"{where}." if where else ""
        return [prefix + line for line in str(mistake["ctx"]["error"]).splitlines()]
    came = mistake.get("input")
    return [f"{where}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, came {came!r}"]

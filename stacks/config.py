"""The typed environment: `environments/{name}.toml`, checked whole before anything is synthesized."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "environments"

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
FARGATE_MEMORY_MIB: dict[int, list[int]] = {
    256: [512, 1024, 2048],
    512: [1024, 2048, 3072, 4096],
    1024: list(range(2048, 8192 + 1, 1024)),
    2048: list(range(4096, 16384 + 1, 1024)),
    4096: list(range(8192, 30720 + 1, 1024)),
    8192: list(range(16384, 61440 + 1, 4096)),
    16384: list(range(32768, 122880 + 1, 8192)),
}
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
SageMakerInstance = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


class ConfigError(ValueError):
    """Every mistake of an environment file, one line each."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FargateSize(Section):
    """`cpu` in CPU units (1024 = one vCPU), `memory_mib` in MiB; only pairs that Fargate has."""

    cpu: int
    memory_mib: int

    @model_validator(mode="after")
    def _fits_fargate(self) -> Self:
        if self.cpu not in FARGATE_MEMORY_MIB:
            raise ValueError(
                f"cpu: {self.cpu} is not a Fargate size ({', '.join(map(str, FARGATE_MEMORY_MIB))})"
            )
        if self.memory_mib not in FARGATE_MEMORY_MIB[self.cpu]:
            allowed = FARGATE_MEMORY_MIB[self.cpu]
            raise ValueError(
                f"memory_mib: {self.memory_mib} does not go with cpu {self.cpu} ({allowed[0]} to {allowed[-1]}, "
                f"such as {', '.join(map(str, allowed[:4]))})"
            )
        return self


class Service(FargateSize):
    count: int = Field(default=1, ge=1, le=10)


class Worker(FargateSize):
    """One fleet: the workers of one queue."""

    concurrency: int = Field(ge=1, le=128)
    min: int = Field(ge=0, le=100)
    max: int = Field(ge=1, le=100)
    idle_seconds: int = Field(
        default=60, ge=10, le=86_400, description="so long a worker must be superfluous before it leaves"
    )
    start_seconds: int = Field(
        default=60, ge=5, le=600, description="from RunTask until a worker takes tasks: how far ahead to look"
    )
    spot_percent: int = Field(default=0, ge=0, le=100, description="share of workers on Fargate Spot")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min: {self.min} is above max {self.max}")
        return self


class Network(Section):
    cidr: str = "10.0.0.0/16"
    availability_zones: int = Field(default=2, ge=2, le=3)
    nat: Literal["gateway", "gateway_per_az", "instance", "none"] = "gateway"
    bastion_instance_type: str = "t4g.micro"

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        try:
            network = ipaddress.IPv4Network(self.cidr)
        except ValueError as error:
            raise ValueError(
                f"cidr: {self.cidr} is not an IPv4 network such as 10.0.0.0/16 ({error})"
            ) from error
        if not 16 <= network.prefixlen <= 22:
            raise ValueError(
                f"cidr: {self.cidr} has /{network.prefixlen}; a VPC with three subnet tiers needs /16 to /22"
            )
        return self


class Database(Section):
    instance_class: Annotated[str, StringConstraints(pattern=r"^db\.[a-z0-9]+\.[a-z0-9]+$")]
    storage_gib: int = Field(default=20, ge=20, le=65_536)
    multi_az: bool = False
    deletion_protection: bool = True
    backup_retention_days: int = Field(default=7, ge=0, le=35)
    ca_bundle: str = Field(description="PEM file with the authorities of the database's certificate")


class Broker(Section):
    kind: Literal["redis", "sqs"] = "redis"
    node_type: str = "cache.t4g.micro"
    ca_bundle: str | None = Field(
        default=None, description="PEM file; without one the public authorities count"
    )
    visibility_timeout_seconds: int = Field(default=43_200, ge=60, le=43_200)


class Dags(Section):
    refresh_seconds: int = Field(default=5, ge=1, le=3600)


class InstanceTypes(Section):
    processing: SageMakerInstance = "ml.m5.large"
    training: SageMakerInstance = "ml.g5.xlarge"
    tuning: SageMakerInstance = "ml.m5.large"
    transform: SageMakerInstance = "ml.m5.large"


class Workflows(Section):
    instance_types: InstanceTypes = InstanceTypes()
    max_runtime_seconds: int = Field(default=3600, ge=60, le=432_000)
    poll_seconds: int = Field(default=10, ge=1, le=600)
    notebook: bool = False
    monthly_budget_usd: int = Field(default=100, ge=1)
    alarm_email: str | None = None


class Tracking(Section):
    enabled: bool = False
    size: FargateSize = FargateSize(cpu=512, memory_mib=1024)


class Services(Section):
    webserver: Service
    scheduler: Service
    dag_processor: Service
    triggerer: Service
    flower: Service | None = None


class EnvironmentConfig(Section):
    """Everything in which two environments may differ."""

    environment: Name
    project: Name = "updraft"
    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")] | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    architecture: Literal["arm64", "x86_64"] = "arm64"
    log_retention_days: int = 30
    health_check_interval_seconds: int = Field(default=30, ge=5, le=300)
    keep_data_on_destroy: bool = True
    tags: dict[str, str] = Field(default_factory=dict)
    network: Network = Network()
    database: Database
    broker: Broker = Broker()
    services: Services
    workers: dict[QueueName, Worker] = Field(min_length=1)
    dags: Dags = Dags()
    workflows: Workflows = Workflows()
    tracking: Tracking = Tracking()

    @property
    def prefix(self) -> str:
        return f"{self.project}-{self.environment}"

    @property
    def ssm_prefix(self) -> str:
        return f"/{self.project}/{self.environment}"

    @property
    def zones(self) -> list[str]:
        return [f"{self.region}{letter}" for letter in "abc"[: self.network.availability_zones]]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        mistakes = []
        if self.log_retention_days not in LOG_RETENTION_DAYS:
            allowed = ", ".join(map(str, LOG_RETENTION_DAYS))
            mistakes.append(f"log_retention_days: {self.log_retention_days} is not one of {allowed}")
        if self.broker.kind == "sqs" and self.services.flower is not None:
            mistakes.append(
                "services.flower: Flower sees nothing on SQS (no remote control, no events); "
                'remove the section or set broker.kind = "redis"'
            )
        if "default" not in self.workers:
            mistakes.append(f"workers: no queue 'default', came: {', '.join(self.workers)}")
        for name, path in (("database", self.database.ca_bundle), ("broker", self.broker.ca_bundle)):
            if path is not None and not (ROOT / path).is_file():
                mistakes.append(f"{name}.ca_bundle: {path} does not exist")
        reserved = [key for key in self.tags if key.startswith(("aws:", "updraft:"))]
        mistakes += [f"tags: '{key}' is reserved; choose a name without aws: or updraft:" for key in reserved]
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


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
        return EnvironmentConfig.model_validate({"environment": name} | values)
    except ValidationError as error:
        lines = [line for mistake in error.errors() for line in _lines(mistake["loc"], mistake)]
        raise ConfigError("\n".join(f"environments/{path.name}: {line}" for line in lines)) from error


def _lines(location: tuple[int | str, ...], mistake: object) -> list[str]:
    """One line for each thing that is wrong at a place: what, what came, what is allowed."""
    assert isinstance(mistake, dict)
    where = ".".join(str(part) for part in location)
    if mistake["type"] == "extra_forbidden":
        return [f"{where}: unknown key"]
    if mistake["type"] == "missing":
        return [f"{where}: missing"]
    if mistake["type"] == "value_error":
        prefix = f"{where}." if where else ""
        return [prefix + line for line in str(mistake["ctx"]["error"]).splitlines()]
    came = mistake.get("input")
    return [f"{where}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, came {came!r}"]

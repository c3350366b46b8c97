"""The typed environment: `environments/{name}.toml`, checked whole before anything is synthesized."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, StringConstraints, ValidationError, model_validator

from stacks.sizes import FargateSize, Section, Service, Worker

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "environments"

# An emulated account: what happens there is on one machine, so nothing needs a way out of the network.
EMULATED_ACCOUNT = "000000000000"
CONTROL_PLANE = {"webserver", "scheduler", "dag_processor", "triggerer"}
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)

# Hyphens only inside and only single, as RDS wants them; none in an environment's name, so that no two pairs of
# project and environment make the same prefix.
ProjectName = Annotated[str, StringConstraints(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=16)]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,15}$")]
QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=32)]
CLOCK_TIME = r"^([01]\d|2[0-3]):[0-5]\d$"
SubnetId = Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]{8,17}$")]
Ami = Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
GITHUB_REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$"
# No log-in, no query: what stands here is read by whoever may describe a task definition.
OPENLINEAGE_URL = r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?$"
SageMakerInstance = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


class ConfigError(ValueError):
    """Every mistake of an environment file, one line each."""


class ExistingNetwork(Section):
    """A VPC that somebody else keeps, with its ways out; nothing is looked up, so every id is given.

    One subnet of each tier in every zone, in the zones' order. `private` ones have a route to the internet through
    a NAT of their own, `isolated` ones hold the data and need none; they may be the same.
    """

    vpc_id: Annotated[str, StringConstraints(pattern=r"^vpc-[0-9a-f]{8,17}$")]
    availability_zones: list[str] = Field(min_length=2, max_length=6)
    private_subnet_ids: list[SubnetId]
    isolated_subnet_ids: list[SubnetId]

    @model_validator(mode="after")
    def _has_a_subnet_in_every_zone(self) -> Self:
        zones = self.availability_zones
        mistakes = [
            f"{tier}: {len(ids)} came for {len(zones)} availability_zones; one in each is needed"
            for tier, ids in (
                ("private_subnet_ids", self.private_subnet_ids),
                ("isolated_subnet_ids", self.isolated_subnet_ids),
            )
            if len(set(ids)) != len(zones)
        ]
        if len(set(zones)) != len(zones):
            mistakes.append(f"availability_zones: {', '.join(zones)} has one twice")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


class Network(Section):
    """A VPC of our own, made with `cidr`, `availability_zones` and `nat`, or the one in `existing`."""

    cidr: str = "10.0.0.0/16"
    availability_zones: int = Field(default=2, ge=2, le=3)
    nat: Literal["gateway", "gateway_per_az", "instance", "none"] = "gateway"
    bastion_instance_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+\d+g[a-z]*\.[a-z0-9]+$")] = (
        "t4g.micro"
    )
    bastion_ami: Ami | None = Field(
        default=None,
        description="An ARM image of Amazon Linux 2023; without one each deployment takes the newest",
    )
    existing: ExistingNetwork | None = None

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        mistakes = []
        try:
            network = ipaddress.IPv4Network(self.cidr)
            if not 16 <= network.prefixlen <= 22:
                mistakes.append(
                    f"cidr: {self.cidr} has /{network.prefixlen}; a VPC with three subnet tiers needs /16 to /22"
                )
        except ValueError as error:
            mistakes.append(f"cidr: {self.cidr} is not an IPv4 network such as 10.0.0.0/16 ({error})")
        if self.existing is not None:
            given = sorted(self.model_fields_set & {"cidr", "availability_zones", "nat"})
            mistakes += [
                f"{key}: belongs to a new VPC; remove it, or remove network.existing" for key in given
            ]
        if mistakes:
            raise ValueError("\n".join(mistakes))
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
    node_type: Annotated[str, StringConstraints(pattern=r"^cache\.[a-z0-9]+\.[a-z0-9]+$")] = "cache.t4g.micro"
    multi_az: bool = Field(default=False, description="A replica in another zone that takes over")
    ca_bundle: str | None = Field(
        default=None, description="PEM file; without one the public authorities count"
    )
    visibility_timeout_seconds: int = Field(default=43_200, ge=60, le=43_200)


class Airflow(Section):
    """What Airflow does beside running tasks."""

    metrics: bool = Field(default=True, description="Airflow's own metrics in CloudWatch")
    xcom_threshold_bytes: int = Field(default=65_536, ge=0, description="Larger XComs go to S3")
    metadata_retention_days: int = Field(default=90, ge=7, le=3650)
    task_queued_timeout_seconds: int = Field(
        default=1800, ge=300, le=86_400, description="Workers that start from zero need their time"
    )


class Dags(Section):
    github_repository: Annotated[str, StringConstraints(pattern=GITHUB_REPOSITORY)] | None = Field(
        default=None,
        description="`owner/name`: its workflows may push, in the GitHub environment of this name",
    )


class Sleep(Section):
    """When everything goes to sleep by itself and wakes up again; without times, only the commands do it."""

    at: Annotated[str, StringConstraints(pattern=CLOCK_TIME)] | None = None
    wake: Annotated[str, StringConstraints(pattern=CLOCK_TIME)] | None = None
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z_]*(/[A-Z][A-Za-z0-9_+-]*)*$")] = "UTC"
    weekdays: tuple[Literal["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"], ...] = Field(
        default=("MON", "TUE", "WED", "THU", "FRI"),
        strict=False,
        min_length=1,
        description="Days it wakes on",
    )

    @model_validator(mode="after")
    def _has_both_times(self) -> Self:
        mistakes = []
        if (self.at is None) != (self.wake is None):
            missing = "wake" if self.wake is None else "at"
            mistakes.append(f"{missing}: missing; a schedule needs both at and wake, such as 21:00 and 07:00")
        elif self.at is not None and self.at == self.wake:
            mistakes.append(f"wake: {self.wake} is when it falls asleep; choose another time")
        known = available_timezones()
        if known and self.time_zone not in known:
            mistakes.append(f"time_zone: {self.time_zone} is not known; choose one such as Europe/Zurich")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


class InstanceTypes(Section):
    processing: SageMakerInstance = "ml.m5.large"
    training: SageMakerInstance = "ml.g5.xlarge"
    tuning: SageMakerInstance = "ml.m5.large"
    transform: SageMakerInstance = "ml.m5.large"


class Notebook(Section):
    """A notebook instance, made stopped; `idle_minutes` without work stop it again, `longest_hours` in any case."""

    instance_type: Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9]+\.[a-z0-9]+$")] = "ml.t3.medium"
    idle_minutes: int = Field(default=60, ge=5, le=1440)
    longest_hours: int = Field(default=12, ge=1, le=168)


class Workflows(Section):
    instance_types: InstanceTypes = InstanceTypes()
    max_runtime_seconds: int = Field(default=3600, ge=60, le=432_000)
    poll_seconds: int = Field(default=10, ge=1, le=600)
    notebook: Notebook | None = None
    monthly_budget_usd: int = Field(default=100, ge=1)
    alarm_email: str | None = None


class Tracking(Section):
    enabled: bool = False
    size: FargateSize = FargateSize(cpu=512, memory_mib=1024)
    openlineage_url: Annotated[str, StringConstraints(pattern=OPENLINEAGE_URL)] | None = Field(
        default=None,
        description="Where Airflow also sends OpenLineage events: https://host/path, without a log-in",
    )


class EmrServerless(Section):
    """An application that starts with a job and stops when it is idle."""

    release_label: Annotated[str, StringConstraints(pattern=r"^emr-\d+\.\d+\.\d+$")] = "emr-7.9.0"
    max_vcpu: int = Field(default=16, ge=2, le=400, description="Of everything that runs at once")
    max_memory_gib: int = Field(default=64, ge=4, le=3000, description="Of everything that runs at once")
    idle_minutes: int = Field(default=5, ge=1, le=10_080)


class Databricks(Section):
    """A workspace of yours: host and token stand in an Airflow connection, the cluster lives for one run."""

    connection_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = (
        "databricks_default"
    )
    spark_version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.x-[a-z0-9.-]+$")] = (
        "16.4.x-scala2.12"
    )
    node_type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9]+$")] = "m5.xlarge"
    workers: int = Field(default=2, ge=1, le=100)
    instance_profile_arn: Annotated[
        str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:instance-profile/\S+$")
    ] = Field(description="Of the cluster's nodes: it has to read and write the data bucket")


class Spark(Section):
    """What runs the PySpark programs; only the chosen engine's settings may be there."""

    engine: Literal["none", "ecs", "emr-serverless", "databricks"] = "none"
    size: FargateSize = Field(
        default=FargateSize(cpu=2048, memory_mib=8192), description="Of the one task of engine `ecs`"
    )
    emr_serverless: EmrServerless = EmrServerless()
    databricks: Databricks | None = None

    @model_validator(mode="after")
    def _is_one_engine(self) -> Self:
        belongs = {"size": "ecs", "emr_serverless": "emr-serverless", "databricks": "databricks"}
        mistakes = [
            f'{key}: only goes with engine "{engine}", and the engine is "{self.engine}"; remove it'
            for key, engine in belongs.items()
            if key in self.model_fields_set and self.engine != engine
        ]
        if self.engine == "databricks" and self.databricks is None:
            mistakes.append(
                'databricks: missing; engine "databricks" needs the cluster\'s instance profile, such as '
                '{ instance_profile_arn = "arn:aws:iam::123456789012:instance-profile/spark" }'
            )
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


class Warehouse(Section):
    """A database for what pipelines make, on the same instance; DAGs reach it by the connection `warehouse`."""

    enabled: bool = False


class Pets(Section):
    """The pet detection pipeline; without this section nothing of it exists.

    `platform` is where the application around the model is deployed; with `none` a model is only registered.
    """

    platform: Literal["none", "ecs", "eks"] = "none"
    instance_type: SageMakerInstance = Field(default="ml.g5.xlarge", description="Of the training, on spot")
    size: FargateSize = Field(
        default=FargateSize(cpu=512, memory_mib=1024), description="Of the application, on ECS"
    )
    count: int = Field(default=1, ge=1, le=10, description="Copies of the application")
    eks_cluster: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$")] | None = None
    eks_namespace: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = (
        "default"
    )

    @model_validator(mode="after")
    def _names_its_platform(self) -> Self:
        if self.platform == "eks" and self.eks_cluster is None:
            raise ValueError('eks_cluster: missing; platform "eks" needs the name of an existing cluster')
        if self.platform != "eks" and self.model_fields_set & {"eks_cluster", "eks_namespace"}:
            raise ValueError(
                f'eks_cluster, eks_namespace: only go with platform "eks", {self.platform!r} came'
            )
        return self


class Services(Section):
    """`control_plane` is the one task of the merged topology; the others are services of their own."""

    webserver: Service = Service(cpu=512, memory_mib=2048)
    scheduler: Service = Service(cpu=512, memory_mib=1024)
    dag_processor: Service = Service(cpu=512, memory_mib=1024)
    triggerer: Service = Service(cpu=256, memory_mib=1024)
    control_plane: FargateSize | None = None
    capacity: Literal["FARGATE", "FARGATE_SPOT"] = Field(
        default="FARGATE",
        description="On spot, every service may be away for minutes; running tasks outlast that",
    )
    flower: Service | None = None


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
        return [f"{self.region}{letter}" for letter in "abc"[: self.network.availability_zones]]

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

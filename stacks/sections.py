"""The sections of an environment's file, each checked by itself; what one needs of another is in `stacks/config.py`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, StringConstraints, model_validator

from stacks.sizes import FargateSize, Section, Service

CLOCK_TIME = r"^([01]\d|2[0-3]):[0-5]\d$"
SubnetId = Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]{8,17}$")]
Ami = Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
GITHUB_REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$"
# No log-in, no query: what stands here is read by whoever may describe a task definition.
OPENLINEAGE_URL = r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?$"
SageMakerInstance = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


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
    availability_zone_names: list[str] | None = Field(
        default=None, description="As many as availability_zones; without them the region's first"
    )
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
            new = {"cidr", "availability_zones", "availability_zone_names", "nat"}
            given = sorted(self.model_fields_set & new)
            mistakes += [
                f"{key}: belongs to a new VPC; remove it, or remove network.existing" for key in given
            ]
        elif self.availability_zone_names is not None:
            mistakes += self._misnamed(self.availability_zone_names)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _misnamed(self, names: list[str]) -> Iterator[str]:
        if len(set(names)) != len(names):
            yield f"availability_zone_names: {', '.join(names)} has one twice"
        elif len(names) != self.availability_zones:
            yield (
                f"availability_zone_names: {len(names)} came, and availability_zones is {self.availability_zones}; "
                "name as many"
            )


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

"""The sizes that tasks and workers may have: Fargate's, and those of the instances that workers run on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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
# GiB of memory for each vCPU of the instance families that workers may run on, and the sizes' vCPUs.
GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
SIZE_VCPUS = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "12xlarge": 48,
    "16xlarge": 64,
}
# What the host, its agents and the kernel keep for themselves.
HOST_MEMORY_SHARE = 0.08

Ec2Instance = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9]+$")]


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
    capacity: Literal["FARGATE", "EC2"] = "FARGATE"
    spot_percent: int = Field(default=0, ge=0, le=100, description="share of workers on Fargate Spot")
    instance_type: Ec2Instance | None = None

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        mistakes = []
        if self.min > self.max:
            mistakes.append(f"min: {self.min} is above max {self.max}")
        if self.capacity == "EC2" and self.instance_type is None:
            mistakes.append('instance_type: missing; capacity "EC2" needs one, such as "m7g.xlarge"')
        if self.capacity != "EC2" and self.instance_type is not None:
            mistakes.append(f'instance_type: {self.instance_type} only goes with capacity "EC2"')
        if self.capacity == "EC2" and self.spot_percent:
            mistakes.append(f'spot_percent: {self.spot_percent} only goes with capacity "FARGATE"')
        if self.instance_type is not None:
            mistakes += self._misfits(self.instance_type)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _misfits(self, instance_type: str) -> list[str]:
        family, size = instance_type.split(".")
        if family[0] not in GIB_PER_VCPU or size not in SIZE_VCPUS:
            families, sizes = ", ".join(GIB_PER_VCPU), ", ".join(SIZE_VCPUS)
            return [f"instance_type: {instance_type} is not of a family {families} and a size {sizes}"]
        cpu = SIZE_VCPUS[size] * 1024
        memory_mib = int(cpu * GIB_PER_VCPU[family[0]] * (1 - HOST_MEMORY_SHARE))
        if self.cpu > cpu or self.memory_mib > memory_mib:
            return [
                f"instance_type: {instance_type} has room for cpu {cpu} and memory_mib {memory_mib}; "
                f"the worker asks for {self.cpu} and {self.memory_mib}"
            ]
        return []

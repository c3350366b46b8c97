"""What runs by the hour: Fargate tasks, instances, the database, the broker, NAT, addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ops.console import OperatorError
from ops.cost.model import HOURS_PER_MONTH, Environment, LineItem, Resource, Usage
from ops.prices import price

GIB_OF_A_PLAIN_VOLUME = 8


def fargate_usd_per_hour(definition: Resource, capacity: str) -> float:
    """One task of a Fargate task definition under `FARGATE` or `FARGATE_SPOT`."""
    architecture = definition.properties.get("RuntimePlatform", {}).get("CpuArchitecture", "X86_64")
    kind = f"{architecture}/{capacity}"
    vcpu = int(definition.properties["Cpu"]) / 1024
    gib = int(definition.properties["Memory"]) / 1024
    return vcpu * price("fargate_vcpu_usd_per_hour", kind) + gib * price("fargate_gib_usd_per_hour", kind)


def service(resource: Resource, environment: Environment, _: Usage) -> Iterator[LineItem]:
    """An ECS service: its tasks, at zero while the environment sleeps."""
    definition = environment.referred(resource.stack, resource.properties["TaskDefinition"])
    assert definition is not None, "a service's task definition stands in its own stack"
    count = int(resource.properties.get("DesiredCount", 1))
    strategy = resource.properties.get("CapacityProviderStrategy", [])
    capacity = strategy[0]["CapacityProvider"] if strategy else "FARGATE"
    name = resource.properties["ServiceName"]
    each = fargate_usd_per_hour(definition, capacity)
    size = f"{int(definition.properties['Cpu']) / 1024:g} vCPU, {int(definition.properties['Memory']) / 1024:g} GiB"
    times = f"{count} x " if count > 1 else ""
    yield resource.item(
        f"service {name}: {times}{size}, {capacity.lower().replace('_', ' ')}", hourly_usd=count * each
    )
    network = resource.properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
    if network.get("AssignPublicIp") == "ENABLED":
        yield resource.item(f"public IPv4 of {name}", hourly_usd=count * price("usd_per_hour", "public_ipv4"))


def worker(resource: Resource, queue: dict[str, Any], usage: Usage) -> Iterator[LineItem]:
    """The workers of a queue on Fargate, for the month's tasks; nothing while there are none."""
    if "FARGATE" not in resource.properties.get("RequiresCompatibilities", ["FARGATE"]):
        return
    spot = queue["spot_percent"] / 100
    hours = usage.task_hours * usage.slot_hours_per_task_hour / queue["slots"]
    each = spot * fargate_usd_per_hour(resource, "FARGATE_SPOT") + (1 - spot) * fargate_usd_per_hour(
        resource, "FARGATE"
    )
    yield resource.item(
        f"workers of {queue['queue']}: {hours:.0f} h, {spot:.0%} spot",
        hourly_usd=queue["min"] * each,
        load_usd=max(0.0, hours - queue["min"] * usage.awake_hours) * each,
    )


def instance(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """An EC2 instance with its volume and, in a public subnet, its address; stopped while the environment sleeps."""
    kind = resource.properties["InstanceType"]
    name = "NAT, bastion" if resource.properties.get("SourceDestCheck") is False else "bastion"
    yield resource.item(f"{name} {kind}", hourly_usd=price("ec2_usd_per_hour", kind))
    volumes = [item["Ebs"] for item in resource.properties.get("BlockDeviceMappings", []) if "Ebs" in item]
    gib = sum(volume.get("VolumeSize", GIB_OF_A_PLAIN_VOLUME) for volume in volumes) or GIB_OF_A_PLAIN_VOLUME
    yield resource.item(
        f"volume of {name}, {gib} GiB", monthly_usd=gib * price("storage_usd_per_gib_month", "ebs_gp3")
    )
    interfaces = resource.properties.get("NetworkInterfaces", [])
    if any(interface.get("AssociatePublicIpAddress") for interface in interfaces):
        yield resource.item(f"public IPv4 of {name}", hourly_usd=price("usd_per_hour", "public_ipv4"))


def scaling_group(resource: Resource, environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """An Auto Scaling group's least instances, with a public address each where its launch template gives one."""
    template = resource.properties["LaunchTemplate"]["LaunchTemplateId"]
    launched = environment.referred(resource.stack, template)
    assert launched is not None, "a group's launch template stands in its own stack"
    data = launched.properties["LaunchTemplateData"]
    least = int(resource.properties.get("MinSize", 0))
    each = price("ec2_usd_per_hour", data["InstanceType"])
    yield resource.item(f"at least {least} x {data['InstanceType']}", hourly_usd=least * each)
    if usage.task_hours and least == 0:
        yield resource.item(f"{data['InstanceType']} for workers", load_usd=usage.task_hours * each)


def database(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """RDS: the instance while awake; storage always. Backups up to the storage's size are free."""
    properties = resource.properties
    times = 2 if properties.get("MultiAZ") else 1
    kind, gib = properties["DBInstanceClass"], int(properties["AllocatedStorage"])
    yield resource.item(f"database {kind}", hourly_usd=times * price("rds_usd_per_hour", kind))
    each = price("storage_usd_per_gib_month", f"rds_{properties.get('StorageType', 'gp3')}")
    yield resource.item(f"database storage, {gib} GiB", monthly_usd=times * gib * each)


def broker(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """ElastiCache has no stop: its nodes bill around the clock."""
    properties = resource.properties
    if properties["Engine"] != "valkey":
        raise OperatorError(f"{resource.logical_id}: only Valkey has prices, not {properties['Engine']}")
    nodes = int(properties.get("NumCacheClusters", 0)) or int(properties.get("NumNodeGroups", 1)) * (
        1 + int(properties.get("ReplicasPerNodeGroup", 0))
    )
    kind = properties["CacheNodeType"]
    yield resource.item(
        f"broker {nodes} x {kind}",
        monthly_usd=nodes * HOURS_PER_MONTH * price("elasticache_valkey_usd_per_hour", kind),
    )


def nat_gateway(resource: Resource, _environment: Environment, usage: Usage) -> Iterator[LineItem]:
    """A NAT gateway has no stop either; its data only flows while awake."""
    yield resource.item("NAT gateway", monthly_usd=HOURS_PER_MONTH * price("usd_per_hour", "nat_gateway"))
    yield resource.item(
        "NAT gateway data", hourly_usd=usage.nat_gib_per_hour * price("usd_per_gib", "nat_gateway")
    )


def address(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """A reserved public address bills whether it is used or not."""
    yield resource.item(
        "reserved public IPv4", monthly_usd=HOURS_PER_MONTH * price("usd_per_hour", "public_ipv4")
    )


def endpoint(resource: Resource, _environment: Environment, _usage: Usage) -> Iterator[LineItem]:
    """Gateway endpoints are free, interface endpoints bill for each subnet."""
    if resource.properties.get("VpcEndpointType", "Gateway") == "Gateway":
        return
    subnets = len(resource.properties.get("SubnetIds", [None]))
    each = HOURS_PER_MONTH * price("usd_per_hour", "interface_endpoint")
    yield resource.item("interface endpoint", monthly_usd=subnets * each)

"""Who reaches whom: nothing from outside, and nothing missing that a task, a function or a mount needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stacks.aws_rules.templates import Finding, Resource, Templates, as_list, is_true

GROUP = "AWS::EC2::SecurityGroup"
INSTANCE = "AWS::EC2::Instance"
INGRESS, EGRESS = "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"
ANYWHERE = ("0.0.0.0/0", "::/0")
HTTPS, NFS = 443, 2049


def rules_of(templates: Templates, kind: str) -> Iterator[tuple[Resource, Resource, dict[str, Any]]]:
    """Every rule as (the group it belongs to, the resource it stands in, the rule)."""
    inline = "SecurityGroupIngress" if kind == INGRESS else "SecurityGroupEgress"
    for group in templates.of(GROUP):
        for rule in as_list(group.properties.get(inline)):
            yield group, group, rule
    for standing in templates.of(kind):
        group_ = templates.target(standing.stack, standing.properties["GroupId"])
        if group_ is not None:
            yield group_, standing, dict(standing.properties)


def nothing_from_outside(templates: Templates) -> Iterator[Finding]:
    """Inbound rules name a security group of the environment, or its own network."""
    own = {str(vpc.properties.get("CidrBlock")) for vpc in templates.of("AWS::EC2::VPC")}
    for _, place, rule in rules_of(templates, INGRESS):
        source = rule.get("CidrIp", rule.get("CidrIpv6"))
        if source is not None and templates.text(place.stack, source) not in own:
            yield place.finding(
                "NETWORK-OPEN",
                f"lets {templates.text(place.stack, source)} in at port {rule.get('FromPort', 'any')}",
                "Name the security group that needs it; people come by Session Manager",
            )
    for group in templates.of(GROUP):
        if not group.stack.endswith("-network"):
            yield group.finding(
                "NETWORK-CYCLE",
                "is a security group outside the network stack",
                "Make it there: rules between stacks become a cycle",
            )


def joined(templates: Templates, source: Resource, target: Resource, port: int) -> bool:
    """Whether a rule on each side lets `source` reach `target` at a port."""

    def has(kind: str, owner: Resource, other: Resource, key: str) -> bool:
        for group, place, rule in rules_of(templates, kind):
            if group is not owner or not _covers(rule, port):
                continue
            if rule.get("CidrIp") in ANYWHERE or templates.target(place.stack, rule.get(key)) is other:
                return True
        return False

    return has(EGRESS, source, target, "DestinationSecurityGroupId") and has(
        INGRESS, target, source, "SourceSecurityGroupId"
    )


def _covers(rule: dict[str, Any], port: int) -> bool:
    if str(rule.get("IpProtocol")) == "-1":
        return True
    return int(rule.get("FromPort", 0)) <= port <= int(rule.get("ToPort", 65_535))


def groups_of(templates: Templates, resource: Resource, value: Any) -> list[Resource]:
    """The security groups that a value names."""
    return [found for item in as_list(value) if (found := templates.target(resource.stack, item)) is not None]


def what_tasks_need(templates: Templates) -> Iterator[Finding]:
    """A service's groups reach AWS, every file system it mounts, and every host that its environment names."""
    hosts = list(_listeners(templates))
    for service in templates.of("AWS::ECS::Service"):
        network = service.properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        groups = groups_of(templates, service, network.get("SecurityGroups"))
        definition = templates.target(service.stack, service.properties.get("TaskDefinition"))
        if not groups or definition is None:
            continue
        if not any(_covers(rule, HTTPS) for group, _, rule in rules_of(templates, EGRESS) if group in groups):
            yield service.finding(
                "NETWORK-AWS", "can't reach AWS's APIs (443)", "No image, no secret, no log: allow it"
            )
        named = list(templates.targets(definition.stack, definition.properties))
        for target, listeners, port in hosts:
            if target in named and not any(
                joined(templates, group, listener, port) for group in groups for listener in listeners
            ):
                yield service.finding(
                    "NETWORK-ARROW",
                    f"uses {target.id}, but no rule lets it through at {port}",
                    "Add the arrow on both sides (stacks/constructs/security_groups.py)",
                )


def _listeners(templates: Templates) -> Iterator[tuple[Resource, list[Resource], int]]:
    for database in templates.of("AWS::RDS::DBInstance"):
        port = int(database.properties.get("Port", 5432))
        yield database, groups_of(templates, database, database.properties.get("VPCSecurityGroups")), port
    for broker in templates.of("AWS::ElastiCache::ReplicationGroup"):
        port = int(broker.properties.get("Port", 6379))
        yield broker, groups_of(templates, broker, broker.properties.get("SecurityGroupIds")), port
    for target in templates.of("AWS::EFS::MountTarget"):
        file_system = templates.target(target.stack, target.properties["FileSystemId"])
        if file_system is not None:
            yield file_system, groups_of(templates, target, target.properties["SecurityGroups"]), NFS


def ways_out(templates: Templates) -> Iterator[Finding]:
    """A subnet's way out: a Lambda needs NAT; a task needs NAT, or a public subnet with an address of its own."""
    if not templates.of("AWS::EC2::VPC"):
        return
    for function in templates.of("AWS::Lambda::Function"):
        for value in as_list(function.properties.get("VpcConfig", {}).get("SubnetIds")):
            subnet = templates.target(function.stack, value)
            if subnet is not None and way_out(templates, subnet) != "nat":
                yield function.finding(
                    "LAMBDA-WAY-OUT",
                    f"is in {subnet.id}, which has no NAT",
                    "A Lambda gets no public address: every call of AWS's APIs would time out",
                )
    for service in templates.of("AWS::ECS::Service"):
        network = service.properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        public = network.get("AssignPublicIp") == "ENABLED"
        for value in as_list(network.get("Subnets")):
            subnet = templates.target(service.stack, value)
            if subnet is None:
                continue
            found = way_out(templates, subnet)
            if found == "none" or (found == "internet gateway" and not public):
                yield service.finding(
                    "ECS-WAY-OUT",
                    f"is in {subnet.id} (way out: {found}) with AssignPublicIp {network.get('AssignPublicIp')}",
                    "It can't pull its image: take a subnet with NAT, or a public one with an address",
                )


def way_out(templates: Templates, subnet: Resource) -> str:
    """`nat`, `internet gateway` or `none`, by the default route of the subnet's route table."""
    for association in templates.of("AWS::EC2::SubnetRouteTableAssociation"):
        if templates.target(association.stack, association.properties["SubnetId"]) is not subnet:
            continue
        table = templates.target(association.stack, association.properties["RouteTableId"])
        for route in templates.of("AWS::EC2::Route"):
            if templates.target(route.stack, route.properties["RouteTableId"]) is not table:
                continue
            if route.properties.get("DestinationCidrBlock") != "0.0.0.0/0":
                continue
            return "internet gateway" if "GatewayId" in route.properties else "nat"
    return "none"


def nat_instance_lets_all_out(templates: Templates) -> Iterator[Finding]:
    """What a group sends to AWS passes the NAT instance's own security groups first."""
    for instance in templates.of(INSTANCE):
        if is_true(instance.properties.get("SourceDestCheck", True)):
            continue
        interfaces = as_list(instance.properties.get("NetworkInterfaces")) or [
            {"GroupSet": instance.properties.get("SecurityGroupIds")}
        ]
        own = [
            group
            for interface in interfaces
            for group in groups_of(templates, instance, interface.get("GroupSet"))
        ]
        callers = {
            group.id: group
            for group, _, rule in rules_of(templates, EGRESS)
            if group not in own and rule.get("CidrIp") in ANYWHERE and _covers(rule, HTTPS)
        }
        for caller in callers.values():
            if not any(joined(templates, caller, group, HTTPS) for group in own):
                yield caller.finding(
                    "NETWORK-NAT",
                    f"may call AWS's APIs, but {instance.id}, the way out, doesn't let it in at {HTTPS}",
                    "Every call would time out: add the rule (stacks/constructs/security_groups.py)",
                )


def databases_are_private(templates: Templates) -> Iterator[Finding]:
    """No database has a public address."""
    for database in templates.of("AWS::RDS::DBInstance"):
        if is_true(database.properties.get("PubliclyAccessible", False)):
            yield database.finding("RDS-PUBLIC", "is publicly accessible", "Set PubliclyAccessible to false")


def bastion_is_found(templates: Templates) -> Iterator[Finding]:
    """CodeDeploy finds its instance by tags."""
    tags = [
        {(tag["Key"], str(tag["Value"])) for tag in as_list(instance.properties.get("Tags"))}
        for instance in templates.of(INSTANCE)
    ]
    for group in templates.of("AWS::CodeDeploy::DeploymentGroup"):
        wanted = {
            (tag["Key"], tag["Value"])
            for tags_ in group.properties.get("Ec2TagSet", {}).get("Ec2TagSetList", [])
            for tag in tags_["Ec2TagGroup"]
        }
        if not any(wanted & found for found in tags):
            yield group.finding(
                "CODEDEPLOY-TARGET", "finds no instance by its tags", "Tag the bastion as the group asks"
            )


def instances_can_be_replaced(templates: Templates) -> Iterator[Finding]:
    """No stack takes an instance's id or address from another: both change with its image or its user data."""
    for stack, template in templates.by_stack.items():
        for output in template.get("Outputs", {}).values():
            for found in templates.targets(stack, output["Value"]) if "Export" in output else ():
                if found.type == INSTANCE:
                    yield found.finding(
                        "INSTANCE-EXPORTED",
                        "is known by its id or address to another stack",
                        "CloudFormation changes no export that is in use, so a new image could never be deployed: "
                        "find the instance by its tag",
                    )


RULES = (
    nothing_from_outside,
    what_tasks_need,
    ways_out,
    nat_instance_lets_all_out,
    databases_are_private,
    bastion_is_found,
    instances_can_be_replaced,
)

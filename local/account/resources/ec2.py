"""AWS::EC2::Instance, SecurityGroupIngress and SecurityGroupEgress, through the account's EC2 API."""

from __future__ import annotations

from typing import Any

from local.account.context import AccountContext
from local.account.resources.shapes import InvalidPropertiesError

Props = dict[str, Any]
INSTANCE = "AWS::EC2::Instance"
INGRESS = "AWS::EC2::SecurityGroupIngress"
EGRESS = "AWS::EC2::SecurityGroupEgress"
# Ports, protocol and description stand in the rule itself; exactly one of these names the other end.
PEERS = {
    "SourceSecurityGroupId",
    "DestinationSecurityGroupId",
    "CidrIp",
    "CidrIpv6",
    "SourcePrefixListId",
    "DestinationPrefixListId",
}
RULE = {"GroupId", "IpProtocol", "FromPort", "ToPort", "Description"} | PEERS
# Properties that an instance takes as RunInstances has them; the others are translated or refused.
RUN = {
    "ImageId",
    "InstanceType",
    "SubnetId",
    "UserData",
    "SecurityGroupIds",
    "LaunchTemplate",
    "MetadataOptions",
}
TRANSLATED = {
    "IamInstanceProfile",
    "Tags",
    "BlockDeviceMappings",
    "AvailabilityZone",
    "NetworkInterfaces",
    "PropagateTagsToVolumeOnCreation",
    "Monitoring",
}


def install(context: AccountContext) -> None:
    """Register the types."""
    Ec2Resources(context).install()


class Ec2Resources:
    """Handlers that call the EC2 API, so that its own checks and botocore's hold."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context

    def install(self) -> None:
        """Register the handlers."""
        register = self._context.register_resource_type
        register(INSTANCE, self.create_instance, self.update_instance, self.delete_instance)
        for resource_type, direction in ((INGRESS, "ingress"), (EGRESS, "egress")):
            rules = SecurityGroupRules(self._context, direction)
            register(resource_type, rules.create, rules.update, rules.delete)

    def create_instance(self, _logical_id: str, props: Props, _stack_name: str) -> tuple[str, Props]:
        """RunInstances with one instance; its id is the physical id."""
        _refuse_unknown(INSTANCE, props, RUN | TRANSLATED)
        request = {name: props[name] for name in RUN if name in props}
        if template := request.get("LaunchTemplate"):
            request["LaunchTemplate"] = {name: str(value) for name, value in template.items()}
        if profile := props.get("IamInstanceProfile"):
            request["IamInstanceProfile"] = {"Name": profile}
        if zone := props.get("AvailabilityZone"):
            request["Placement"] = {"AvailabilityZone": zone}
        if "Monitoring" in props:
            request["Monitoring"] = {"Enabled": str(props["Monitoring"]).lower() == "true"}
        if interfaces := props.get("NetworkInterfaces"):
            request |= _first_interface(interfaces)
        if tags := props.get("Tags"):
            request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": tags}]
        client = self._context.boto3_client("ec2")
        instance = client.run_instances(MinCount=1, MaxCount=1, **_decoded(request))["Instances"][0]
        return instance["InstanceId"], {
            "PrivateIp": instance.get("PrivateIpAddress", ""),
            "PrivateDnsName": instance.get("PrivateDnsName", ""),
            "PublicIp": instance.get("PublicIpAddress", ""),
            "PublicDnsName": instance.get("PublicDnsName", ""),
            "AvailabilityZone": instance.get("Placement", {}).get("AvailabilityZone", ""),
        }

    def update_instance(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """Tags change in place; anything else makes another instance, as most changes do on AWS."""
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if changed == {"Tags"}:
            self._context.boto3_client("ec2").create_tags(Resources=[physical_id], Tags=new["Tags"])
            return physical_id, {}
        return self.create_instance(logical_id or physical_id, new, stack_name)

    def delete_instance(self, physical_id: str, _props: Props) -> None:
        """TerminateInstances."""
        self._context.boto3_client("ec2").terminate_instances(InstanceIds=[physical_id])


class SecurityGroupRules:
    """Rules that stand outside their group."""

    def __init__(self, context: AccountContext, direction: str) -> None:
        self._context = context
        self._direction = direction

    def create(self, _logical_id: str, props: Props, _stack_name: str) -> tuple[str, Props]:
        """Authorize the rule; its id is the physical id."""
        client = self._context.boto3_client("ec2")
        answer = getattr(client, f"authorize_security_group_{self._direction}")(**_rule(props))
        rules = answer.get("SecurityGroupRules", [])
        rule_id = rules[0]["SecurityGroupRuleId"] if rules else f"{props['GroupId']}-{self._direction}"
        return rule_id, {"Id": rule_id}

    def update(
        self, physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        """A changed rule is another rule."""
        self.delete(physical_id, old)
        return self.create(logical_id or physical_id, new, stack_name)

    def delete(self, _physical_id: str, props: Props) -> None:
        """Revoke the rule."""
        client = self._context.boto3_client("ec2")
        getattr(client, f"revoke_security_group_{self._direction}")(**_rule(props))


def _rule(props: Props) -> Props:
    _refuse_unknown("security group rule", props, RULE)
    permission: Props = {"IpProtocol": str(props["IpProtocol"])}
    for port in ("FromPort", "ToPort"):
        if port in props:
            permission[port] = int(props[port])
    note = {"Description": props["Description"]} if "Description" in props else {}
    peer = props.get("SourceSecurityGroupId") or props.get("DestinationSecurityGroupId")
    if peer:
        permission["UserIdGroupPairs"] = [{"GroupId": peer} | note]
    elif "CidrIp" in props:
        permission["IpRanges"] = [{"CidrIp": props["CidrIp"]} | note]
    elif "CidrIpv6" in props:
        permission["Ipv6Ranges"] = [{"CidrIpv6": props["CidrIpv6"]} | note]
    else:
        raise InvalidPropertiesError(
            f"security group rule: names no other end; one of {', '.join(sorted(PEERS))}"
        )
    return {"GroupId": props["GroupId"], "IpPermissions": [permission]}


def _first_interface(interfaces: list[Props]) -> Props:
    if len(interfaces) != 1:
        raise InvalidPropertiesError(
            f"{INSTANCE}: {len(interfaces)} network interfaces came, one is supported"
        )
    interface = interfaces[0]
    _refuse_unknown(
        f"{INSTANCE}.NetworkInterfaces",
        interface,
        {"AssociatePublicIpAddress", "DeviceIndex", "GroupSet", "SubnetId"},
    )
    return {"SubnetId": interface["SubnetId"], "SecurityGroupIds": interface.get("GroupSet", [])}


def _decoded(request: Props) -> Props:
    """CloudFormation takes user data in base64; boto3 encodes it by itself."""
    import base64

    if "UserData" in request:
        request["UserData"] = base64.b64decode(request["UserData"]).decode()
    return request


def _refuse_unknown(of: str, props: Props, known: set[str]) -> None:
    unknown = sorted(set(props) - known)
    if unknown:
        raise InvalidPropertiesError(f"{of}: not supported here: {', '.join(unknown)}")

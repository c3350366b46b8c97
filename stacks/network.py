"""The network: VPC, subnets, NAT, every security group with one rule per needed arrow, and the bastion."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.constructs.bastion import Bastion
from stacks.constructs.log_group import log_group
from stacks.constructs.security_groups import SecurityGroups
from stacks.sections import ExistingNetwork
from stacks.waivers import waive

NAT_GATEWAYS = {"gateway": 1, "gateway_per_az": None, "instance": 0, "none": 0}


class NetworkStack(cdk.Stack):
    """`vpc`, `groups` (every security group) and the `bastion`."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: EnvironmentConfig, **kwargs: Any
    ) -> None:
        self._zones = config.zones
        super().__init__(scope, construct_id, **kwargs)
        existing = config.network.existing
        self.vpc = self._import_vpc(existing) if existing else self._build_vpc(config)
        self.groups = SecurityGroups(self, "SecurityGroups", vpc=self.vpc, config=config)
        self.bastion = Bastion(
            self,
            "Bastion",
            vpc=self.vpc,
            security_group=self.groups.bastion,
            config=config,
        )
        if config.bastion_is_nat:
            self._route_through_bastion()
        cdk.CfnOutput(self, "VpcId", value=self.vpc.vpc_id)
        cdk.CfnOutput(self, "BastionInstanceId", value=self.bastion.instance.instance_id)

    @property
    def availability_zones(self) -> list[str]:
        """The zones that the environment names: without this, synth would ask AWS for them."""
        return self._zones

    @property
    def service_subnets(self) -> ec2.SubnetSelection:
        """Where tasks and Lambdas run: the private subnets, or the public ones where there is no NAT."""
        return ec2.SubnetSelection(subnets=self.vpc.private_subnets or self.vpc.public_subnets)

    @property
    def data_subnets(self) -> ec2.SubnetSelection:
        """Where database, broker and file system are."""
        return ec2.SubnetSelection(subnets=self.vpc.isolated_subnets)

    @property
    def service_subnet_ids(self) -> list[str]:
        """The ids of the service subnets."""
        return [subnet.subnet_id for subnet in self.vpc.private_subnets or self.vpc.public_subnets]

    @property
    def assigns_public_ip(self) -> bool:
        """Tasks without a NAT reach AWS by an address of their own; no rule lets anything in."""
        return not self.vpc.private_subnets

    def _import_vpc(self, existing: ExistingNetwork) -> ec2.IVpc:
        # Nothing here needs the route tables of somebody else's subnets.
        cdk.Annotations.of(self).acknowledge_warning("@aws-cdk/aws-ec2:noSubnetRouteTableId")
        return ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=existing.vpc_id,
            availability_zones=existing.availability_zones,
            private_subnet_ids=existing.private_subnet_ids,
            isolated_subnet_ids=existing.isolated_subnet_ids,
        )

    def _build_vpc(self, config: EnvironmentConfig) -> ec2.Vpc:
        nat = config.network.nat
        tiers = [
            ec2.SubnetConfiguration(
                name="public", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False
            ),
            ec2.SubnetConfiguration(name="isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
        ]
        if nat != "none":
            tiers.append(
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
            )
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.network.cidr),
            max_azs=len(config.zones),
            nat_gateways=NAT_GATEWAYS[nat],
            subnet_configuration=tiers,
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        self._watch(vpc, config)
        return vpc

    def _watch(self, vpc: ec2.Vpc, config: EnvironmentConfig) -> None:
        if config.hardened:
            group = log_group(
                self,
                "FlowLogs",
                name=f"{config.ssm_prefix}/flow-logs",
                retention_days=config.log_retention_days,
            )
            vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
        else:
            waive(
                vpc,
                "Flow logs are billed by the GB; a hardened environment has them",
                "AwsSolutions-VPC7",
            )
        waive(
            vpc,
            "Everything names its own groups and nothing is in the default one; closing it would take a Lambda",
            "NIST.800.53.R5-VPCDefaultSecurityGroupClosed",
        )
        for subnet in vpc.public_subnets:
            waive(
                subnet.node.find_child("DefaultRoute"),
                "This route is what makes a subnet public; only NAT is in it",
                "NIST.800.53.R5-VPCNoUnrestrictedRouteToIGW",
            )

    def _route_through_bastion(self) -> None:
        """The private subnets reach the internet through the bastion, which is the NAT instance as well."""
        for subnet in self.vpc.private_subnets:
            assert isinstance(subnet, ec2.Subnet)
            subnet.add_route(
                "Nat",
                router_type=ec2.RouterType.INSTANCE,
                router_id=self.bastion.instance.instance_id,
                enables_internet_connectivity=True,
            )

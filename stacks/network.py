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
from stacks.waivers import waive


class NetworkStack(cdk.Stack):
    """`vpc`, `groups` (every security group) and the `bastion`."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: EnvironmentConfig, **kwargs: Any
    ) -> None:
        self._zones = config.zones
        super().__init__(scope, construct_id, **kwargs)
        self.vpc = self._build_vpc(config)
        self._watch(config)
        self.groups = SecurityGroups(self, "SecurityGroups", vpc=self.vpc)
        self.bastion = Bastion(
            self, "Bastion", vpc=self.vpc, security_group=self.groups.bastion, config=config
        )
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
    def service_subnet_ids(self) -> list[str]:
        """The ids of the service subnets."""
        return [subnet.subnet_id for subnet in self.vpc.private_subnets or self.vpc.public_subnets]

    @property
    def assigns_public_ip(self) -> bool:
        """Tasks without a NAT reach AWS by an address of their own; no rule lets anything in."""
        return not self.vpc.private_subnets

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
        provider = self._nat_instance(config) if nat == "instance" else None
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.network.cidr),
            max_azs=len(config.zones),
            nat_gateways={"none": 0, "gateway_per_az": None}.get(nat, 1),
            nat_gateway_provider=provider,
            subnet_configuration=tiers,
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        if provider is not None:
            provider.connections.allow_from(
                ec2.Peer.ipv4(config.network.cidr), ec2.Port.all_traffic(), "what the VPC sends out"
            )
            for gateway in provider.gateway_instances:
                self._finish_nat_instance(gateway)
        return vpc

    def _finish_nat_instance(self, gateway: ec2.Instance) -> None:
        instance = gateway.instance
        instance.monitoring = True
        instance.block_device_mappings = [
            ec2.CfnInstance.BlockDeviceMappingProperty(
                device_name="/dev/xvda", ebs=ec2.CfnInstance.EbsProperty(encrypted=True)
            )
        ]
        waive(
            gateway,
            "Encrypted above: cdk-nag fails on an instance without a launch template",
            "AwsSolutions-EC26",
        )
        waive(
            gateway,
            "It holds nothing; termination protection would make its replacement by CloudFormation fail",
            "AwsSolutions-EC29",
        )

    def _watch(self, config: EnvironmentConfig) -> None:
        if config.hardened:
            group = log_group(
                self,
                "FlowLogs",
                name=f"{config.ssm_prefix}/flow-logs",
                retention_days=config.log_retention_days,
            )
            self.vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
        else:
            waive(
                self.vpc,
                "Flow logs are billed by the GB; a hardened environment has them",
                "AwsSolutions-VPC7",
            )
        waive(
            self.vpc,
            "Everything names its own groups and nothing is in the default one; closing it would take a Lambda",
            "NIST.800.53.R5-VPCDefaultSecurityGroupClosed",
        )
        for subnet in self.vpc.public_subnets:
            waive(
                subnet.node.find_child("DefaultRoute"),
                "This route is what makes a subnet public; only NAT is in it",
                "NIST.800.53.R5-VPCNoUnrestrictedRouteToIGW",
            )

    def _nat_instance(self, config: EnvironmentConfig) -> ec2.NatInstanceProviderV2:
        return ec2.NatProvider.instance_v2(
            instance_type=ec2.InstanceType(config.network.bastion_instance_type),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
            default_allowed_traffic=ec2.NatTrafficDirection.OUTBOUND_ONLY,
        )

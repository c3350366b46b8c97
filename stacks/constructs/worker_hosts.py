"""Instances for the workers of one queue, where Fargate is too small or too dear: they come and go with the tasks."""

from __future__ import annotations

from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.network import NetworkStack
from stacks.sizes import Worker
from stacks.waivers import policy_of, waive

ROOT_VOLUME_GIB = 50


class WorkerHosts(Construct):
    """`provider`: an Auto Scaling group from zero, scaled by ECS to what the queue's tasks need.

    Managed termination protection keeps an instance as long as a task runs on it, managed draining has ECS move away
    before an instance is replaced; so a busy worker is never ended with its host.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        worker: Worker,
        architecture: str,
        cluster: ecs.Cluster,
        network: NetworkStack,
    ) -> None:
        super().__init__(scope, construct_id)
        assert worker.instance_type is not None, "checked with the environment"
        assert network.groups.worker_hosts is not None, "made where a queue has instances"
        hardware = ecs.AmiHardwareType.ARM if architecture == "arm64" else ecs.AmiHardwareType.STANDARD
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        template = ec2.LaunchTemplate(
            self,
            "Template",
            instance_type=ec2.InstanceType(worker.instance_type),
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(hardware),
            role=role,
            security_group=network.groups.worker_hosts,
            user_data=ec2.UserData.for_linux(),
            require_imdsv2=True,
            detailed_monitoring=True,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        ROOT_VOLUME_GIB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
                    ),
                )
            ],
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=network.service_subnets,
            launch_template=template,
            min_capacity=0,
            # At worst each worker has an instance of its own, and a deployment may double the fleet.
            max_capacity=2 * worker.max,
            new_instances_protected_from_scale_in=True,
        )
        self.provider = ecs.AsgCapacityProvider(
            self,
            "Provider",
            auto_scaling_group=group,
            enable_managed_scaling=True,
            enable_managed_termination_protection=True,
            enable_managed_draining=True,
            target_capacity_percent=100,
        )
        cluster.add_asg_capacity_provider(self.provider)
        waive(
            policy_of(role),
            "What CDK grants the agent of ECS: an instance's id isn't known before, and what it polls names the cluster",
            "AwsSolutions-IAM5",
            "IAM-ACTION",
            "IAM-RESOURCE",
        )
        waive(
            group,
            "ECS scales it to its tasks, and EventBridge carries every change already",
            "AwsSolutions-AS3",
        )

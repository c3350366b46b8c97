"""An ECS service that keeps one kind of Airflow task running, healthy, and reachable by name where it listens."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from stacks.network import NetworkStack

# Tasks come and go with deployments: a name must not outlive its task for long.
DNS_TTL_SECONDS = 10


class AirflowService(Construct):
    """`service`; with a `dns_name` it is found as `{dns_name}.{namespace}`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        definition: ecs.TaskDefinition,
        count: int,
        capacity: str,
        cluster: ecs.ICluster,
        network: NetworkStack,
        security_groups: Sequence[ec2.ISecurityGroup],
        execute_command: bool,
        namespace: servicediscovery.INamespace,
        dns_name: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.service = ecs.FargateService(
            self,
            "Service",
            service_name=name,
            cluster=cluster,
            task_definition=definition,
            desired_count=count,
            # The default capacity is left unsaid: a change of the strategy replaces a service's tasks.
            capacity_provider_strategies=None
            if capacity == "FARGATE"
            else [ecs.CapacityProviderStrategy(capacity_provider=capacity, weight=1)],
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            vpc_subnets=network.service_subnets,
            assign_public_ip=network.assigns_public_ip,
            security_groups=list(security_groups),
            # CDK adds the four ssmmessages actions to the task's role with it, and nothing without.
            enable_execute_command=execute_command,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            cloud_map_options=ecs.CloudMapOptions(
                name=dns_name,
                cloud_map_namespace=namespace,
                dns_record_type=servicediscovery.DnsRecordType.A,
                dns_ttl=cdk.Duration.seconds(DNS_TTL_SECONDS),
            )
            if dns_name
            else None,
        )
        # The cluster's capacity providers stand beside it: AWS refuses to take one away that a service still uses.
        self.service.node.add_dependency(cluster)

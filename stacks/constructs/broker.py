"""The Celery broker: Valkey with TLS and a password, or SQS queues with a dead-letter queue."""

from __future__ import annotations

from collections.abc import Callable

import aws_cdk as cdk
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.network import NetworkStack
from stacks.waivers import waive

DELIVERIES_BEFORE_DEAD = 5


class Broker(Construct):
    """With `kind = "redis"`: `group_id`, `host`, `port`, `password`; with `kind = "sqs"`: `queues` by Celery queue name."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        generate: Callable[[str, str], secretsmanager.Secret],
    ) -> None:
        super().__init__(scope, construct_id)
        self.kind = config.broker.kind
        self.group_id = ""
        self.host = ""
        self.port = ""
        self.password: secretsmanager.ISecret | None = None
        self.queues: dict[str, sqs.Queue] = {}
        if self.kind == "redis":
            self.password = generate("BrokerPassword", "Password of the Celery broker")
            group = self._build_valkey(config, network, self.password)
            self.group_id = group.ref
            self.host = group.attr_primary_end_point_address
            self.port = group.attr_primary_end_point_port
        else:
            self._build_queues(config)

    def _build_valkey(
        self, config: EnvironmentConfig, network: NetworkStack, password: secretsmanager.ISecret
    ) -> elasticache.CfnReplicationGroup:
        assert network.groups.broker is not None, "made with this kind"
        subnets = elasticache.CfnSubnetGroup(
            self,
            "Subnets",
            description=f"Broker of {config.prefix}",
            subnet_ids=[subnet.subnet_id for subnet in network.vpc.isolated_subnets],
        )
        group = elasticache.CfnReplicationGroup(
            self,
            "Valkey",
            replication_group_description=f"Celery broker of {config.prefix}",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=config.broker.node_type,
            num_cache_clusters=2 if config.broker.multi_az else 1,
            automatic_failover_enabled=config.broker.multi_az,
            multi_az_enabled=config.broker.multi_az,
            cache_subnet_group_name=subnets.ref,
            security_group_ids=[network.groups.broker.security_group_id],
            transit_encryption_enabled=True,
            at_rest_encryption_enabled=True,
            # The template carries a reference that CloudFormation resolves, never the password itself.
            auth_token=password.secret_value.unsafe_unwrap(),
        )
        waive(group, "Only named security groups reach it, whatever the port", "AwsSolutions-AEC5")
        if not config.broker.multi_az:
            waive(group, "The environment's file chooses one node, for its cost", "AwsSolutions-AEC4")
        waive(
            group,
            "A queue that came back from a backup would run finished tasks again",
            "NIST.800.53.R5-ElastiCacheRedisClusterAutomaticBackup",
        )
        return group

    def _build_queues(self, config: EnvironmentConfig) -> None:
        dead = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        for name in config.workers:
            self.queues[name] = sqs.Queue(
                self,
                f"Queue-{name}",
                queue_name=f"{config.prefix}-{name}",
                encryption=sqs.QueueEncryption.SQS_MANAGED,
                enforce_ssl=True,
                visibility_timeout=cdk.Duration.seconds(config.broker.visibility_timeout_seconds),
                dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=DELIVERIES_BEFORE_DEAD),
            )

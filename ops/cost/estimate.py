"""Every resource of an environment priced, or known to be free; a type that is neither fails the estimate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ops.console import OperatorError
from ops.cost import compute, managed
from ops.cost.model import Environment, LineItem, Resource, Usage
from ops.prices import PRICE_FILE, price

PRICED: dict[str, Callable[[Resource, Environment, Usage], Iterable[LineItem]]] = {
    "AWS::AutoScaling::AutoScalingGroup": compute.scaling_group,
    "AWS::CloudWatch::Alarm": managed.alarm,
    "AWS::CloudWatch::CompositeAlarm": managed.composite_alarm,
    "AWS::CloudWatch::Dashboard": managed.dashboard,
    "AWS::EC2::EIP": compute.address,
    "AWS::EC2::FlowLog": managed.flow_log,
    "AWS::EC2::Instance": compute.instance,
    "AWS::EC2::NatGateway": compute.nat_gateway,
    "AWS::EC2::VPCEndpoint": compute.endpoint,
    "AWS::ECS::Service": compute.service,
    "AWS::EFS::FileSystem": managed.file_system,
    "AWS::ElastiCache::ReplicationGroup": compute.broker,
    "AWS::KMS::Key": managed.key,
    "AWS::Lambda::Function": managed.function,
    "AWS::Logs::LogGroup": managed.log_group,
    "AWS::RDS::DBInstance": compute.database,
    "AWS::S3::Bucket": managed.bucket,
    "AWS::SQS::Queue": managed.queue,
    "AWS::SageMaker::NotebookInstance": managed.notebook,
    "AWS::Scheduler::Schedule": managed.schedule,
    "AWS::SecretsManager::Secret": managed.secret,
    "AWS::ServiceDiscovery::PrivateDnsNamespace": managed.hosted_zone,
}
# Nothing is billed for the thing itself; where its use is, another type carries it.
FREE = frozenset(
    [
        "AWS::Budgets::Budget",
        "AWS::CDK::Metadata",
        "AWS::CodeDeploy::Application",
        "AWS::CodeDeploy::DeploymentGroup",
        "AWS::EC2::EIPAssociation",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::LaunchTemplate",
        "AWS::EC2::Route",
        "AWS::EC2::RouteTable",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EC2::Subnet",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPC",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::ECS::CapacityProvider",
        "AWS::ECS::Cluster",
        "AWS::ECS::ClusterCapacityProviderAssociations",
        "AWS::ECS::TaskDefinition",
        # Billed by its jobs, as SageMaker is.
        "AWS::EMRServerless::Application",
        "AWS::EFS::AccessPoint",
        "AWS::EFS::MountTarget",
        "AWS::ElastiCache::ParameterGroup",
        "AWS::ElastiCache::SubnetGroup",
        "AWS::Events::Rule",
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::OIDCProvider",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::KMS::Alias",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::LayerVersion",
        "AWS::Lambda::Permission",
        "AWS::AutoScaling::LifecycleHook",
        "AWS::Logs::MetricFilter",
        "AWS::Logs::QueryDefinition",
        "AWS::Logs::ResourcePolicy",
        "AWS::RDS::DBParameterGroup",
        "AWS::RDS::DBSubnetGroup",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::Subscription",
        "AWS::SNS::Topic",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::SSM::Parameter",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::SageMaker::NotebookInstanceLifecycleConfig",
        "AWS::Scheduler::ScheduleGroup",
        "AWS::SecretsManager::ResourcePolicy",
        "AWS::SecretsManager::SecretTargetAttachment",
        "AWS::ServiceDiscovery::Service",
        "AWS::StepFunctions::StateMachine",
        "Custom::AWSCDKOpenIdConnectProvider",
        "Custom::DatabaseMigration",
        "Custom::S3AutoDeleteObjects",
        "Custom::VpcRestrictDefaultSG",
    ]
)


def read_templates(assembly: Path) -> dict[str, dict[str, Any]]:
    """The synthesized templates of a cloud assembly by stack name."""
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(assembly.glob("*.template.json"))
    }


def line_items(environment: Environment, usage: Usage) -> list[LineItem]:
    """What is billed; raises OperatorError naming every resource type that is neither priced nor free."""
    unknown = sorted({item.type for item in environment.resources} - PRICED.keys() - FREE)
    if unknown:
        raise OperatorError(
            f"no price, and not known to be free: {', '.join(unknown)}. Add each to ops/cost/estimate.py: "
            f"a function in PRICED with its price in {PRICE_FILE.name}, or its name in FREE"
        )
    items = [
        item
        for resource in environment.resources
        if resource.type in PRICED
        for item in PRICED[resource.type](resource, environment, usage)
    ]
    return [*items, *_workers(environment, usage), *managed.airflow_metrics(environment), _images(usage)]


def _workers(environment: Environment, usage: Usage) -> Iterator[LineItem]:
    for function in environment.of_type("AWS::Lambda::Function"):
        variables = function.properties.get("Environment", {}).get("Variables", {})
        if function.properties.get("Handler") != managed.LOAD_METRIC:
            continue
        queues = json.loads(_text(variables["UPDRAFT_QUEUES"]))
        for queue in queues:
            definitions = [
                item
                for item in environment.of_type("AWS::ECS::TaskDefinition")
                if str(item.properties["Family"]).endswith(f"-worker-{queue['queue']}")
            ]
            share = Usage(**(vars(usage) | {"task_hours": usage.task_hours / len(queues)}))
            for definition in definitions:
                yield from compute.worker(definition, queue, share)


def _text(value: Any) -> str:
    """A variable's text; what only the deployment knows is put in as empty."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(part if isinstance(part, str) else "" for part in value["Fn::Join"][1])
    return str(value)


def _images(usage: Usage) -> LineItem:
    """Images lie in the CDK's own repository, outside of the stacks."""
    return LineItem(
        f"container images, {usage.image_gib:g} GiB",
        "CDKToolkit",
        "ContainerAssetsRepository",
        monthly_usd=usage.image_gib * price("storage_usd_per_gib_month", "ecr"),
    )

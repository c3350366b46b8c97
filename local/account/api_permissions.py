"""Which permissions a request needs where the emulator's own reading of it is not AWS's.

Source of actions and their resources:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Request = Mapping[str, Any]
# Resource types of SageMaker by what an operation's name ends with, and the member that names the resource.
SAGEMAKER = {
    "TrainingJob": ("TrainingJobName", "training-job"),
    "ProcessingJob": ("ProcessingJobName", "processing-job"),
    "TransformJob": ("TransformJobName", "transform-job"),
    "HyperParameterTuningJob": ("HyperParameterTuningJobName", "hyper-parameter-tuning-job"),
    "Model": ("ModelName", "model"),
    "ModelPackageGroup": ("ModelPackageGroupName", "model-package-group"),
    "EndpointConfig": ("EndpointConfigName", "endpoint-config"),
    "Endpoint": ("EndpointName", "endpoint"),
    "NotebookInstance": ("NotebookInstanceName", "notebook-instance"),
}
# https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
JOB_IMAGE = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")
JOB_NETWORK = (
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
FUNCTION_NETWORK = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
# https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
SESSIONS = (
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


@dataclass(frozen=True)
class Permission:
    """One action on one resource, with the condition keys that the request carries; `*` where AWS has no resource."""

    action: str
    resource: str = "*"
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestReader:
    """Reads requests to one account and region; `roles_of_task` are those of a task definition, by ARN or family."""

    region: str
    account_id: str
    roles_of_task: Callable[[str], tuple[str, list[str]]]

    def permissions(self, action: str, request: Request) -> list[Permission]:
        """What the request needs; nothing where the emulator's own reading holds."""
        service, _, operation = action.partition(":")
        read = getattr(self, f"_of_{service.replace('-', '_')}", None)
        return list(read(operation, request)) if read else []

    def arn(self, service: str, resource: str) -> str:
        """An ARN of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account_id}:{resource}"

    def _of_sagemaker(self, operation: str, request: Request) -> Iterator[Permission]:
        action = f"sagemaker:{operation}"
        resource = self._sagemaker_resource(operation, request)
        yield Permission(action, resource)
        if operation.startswith("Create"):
            if request.get("Tags"):
                yield Permission("sagemaker:AddTags", resource)
            for role in _roles_in(request):
                yield _pass(role, "sagemaker.amazonaws.com")

    def _sagemaker_resource(self, operation: str, request: Request) -> str:
        if "ResourceArn" in request:
            return str(request["ResourceArn"])
        noun = re.sub(r"^(Create|Describe|Stop|Start|Update|Delete)", "", operation)
        if noun in SAGEMAKER:
            member, kind = SAGEMAKER[noun]
            return self.arn("sagemaker", f"{kind}/{request.get(member, '')}")
        if noun in ("ModelPackage", "ListModelPackages"):
            named = str(request.get("ModelPackageArn") or request.get("ModelPackageName") or "")
            if named:
                return named if named.startswith("arn:") else self.arn("sagemaker", f"model-package/{named}")
            return self.arn("sagemaker", f"model-package/{request.get('ModelPackageGroupName', '')}/1")
        return "*"

    def _of_ecs(self, operation: str, request: Request) -> Iterator[Permission]:
        action = f"ecs:{operation}"
        cluster = str(request.get("cluster") or "default").rpartition("/")[2]
        keys = {"ecs:cluster": self.arn("ecs", f"cluster/{cluster}")}
        if operation == "RunTask":
            definition, roles = self.roles_of_task(str(request["taskDefinition"]))
            yield Permission(action, definition, keys)
            overrides = request.get("overrides", {})
            changed = [overrides[name] for name in ("taskRoleArn", "executionRoleArn") if name in overrides]
            for role in changed or roles:
                yield _pass(role, "ecs-tasks.amazonaws.com")
            if request.get("tags") or request.get("propagateTags", "NONE") != "NONE":
                task = self.arn("ecs", f"task/{cluster}/new")
                yield Permission("ecs:TagResource", task, {"ecs:CreateAction": "RunTask"})
        elif named := [*request.get("tasks", []), *filter(None, [request.get("task")])]:
            for task in named:
                yield Permission(
                    action, self.arn("ecs", f"task/{cluster}/{str(task).rpartition('/')[2]}"), keys
                )
        elif named := [*request.get("services", []), *filter(None, [request.get("service")])]:
            for service in named:
                arn = self.arn("ecs", f"service/{cluster}/{str(service).rpartition('/')[2]}")
                yield Permission(action, arn, keys)
        elif operation == "RegisterTaskDefinition":
            yield Permission(action, self.arn("ecs", f"task-definition/{request.get('family', '')}:1"))
            for name in ("taskRoleArn", "executionRoleArn"):
                if name in request:
                    yield _pass(str(request[name]), "ecs-tasks.amazonaws.com")
        elif operation == "DescribeClusters":
            for name in request.get("clusters", ["default"]):
                yield Permission(action, self.arn("ecs", f"cluster/{str(name).rpartition('/')[2]}"))
        else:
            yield Permission(action, "*", keys if "cluster" in request else {})

    def _of_codebuild(self, operation: str, request: Request) -> Iterator[Permission]:
        # A build's id begins with its project's name.
        for build in [*request.get("ids", []), *filter(None, [request.get("id")])]:
            project = str(build).rpartition("/")[2].partition(":")[0]
            yield Permission(f"codebuild:{operation}", self.arn("codebuild", f"project/{project}"))

    def _of_logs(self, operation: str, request: Request) -> Iterator[Permission]:
        group = str(request.get("logGroupName") or request.get("logGroupIdentifier") or "")
        if group and not operation.endswith(("TagResource", "TagsForResource")):
            group = group.rpartition(":log-group:")[2].removesuffix(":*")
            stream = request.get("logStreamName", "")
            yield Permission(f"logs:{operation}", self.arn("logs", f"log-group:{group}:log-stream:{stream}"))

    def _of_ssm(self, operation: str, request: Request) -> Iterator[Permission]:
        names = request.get("Names") if operation in ("GetParameters", "DeleteParameters") else None
        if operation == "GetParametersByPath":
            names = [request.get("Path", "/")]
        for name in names or []:
            yield Permission(f"ssm:{operation}", self.arn("ssm", f"parameter/{str(name).strip('/')}"))

    def _of_cloudwatch(self, operation: str, request: Request) -> Iterator[Permission]:
        if operation == "PutMetricData":
            yield Permission(
                "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": str(request.get("Namespace", ""))}
            )

    # What AWS itself does with a role, without a request that the emulator would see.

    def of_a_job(self, job: Request, image: str) -> Iterator[Permission]:
        """What SageMaker does with a job's role before the job's container starts."""
        yield from self._of_an_image(image, JOB_IMAGE)
        network = job.get("VpcConfig") or job.get("NetworkConfig", {}).get("VpcConfig")
        if not network:
            return
        for action in JOB_NETWORK:
            yield Permission(action)
        interface = self.arn("ec2", "network-interface/eni-0")
        for subnet in network["Subnets"]:
            yield Permission("ec2:CreateNetworkInterface", self.arn("ec2", f"subnet/{subnet}"))
        for group in network["SecurityGroupIds"]:
            yield Permission("ec2:CreateNetworkInterface", self.arn("ec2", f"security-group/{group}"))
        for verb in ("CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface"):
            yield Permission(f"ec2:{verb}", interface)
        yield Permission("ec2:DeleteNetworkInterfacePermission", interface)

    def of_an_execution_role(self, image: str) -> Iterator[Permission]:
        """What the ECS agent does with an execution role; secrets and logs it asks for by requests."""
        yield from self._of_an_image(image, JOB_IMAGE)

    def of_a_mount(self, file_system_id: str, *, writes: bool, as_root: bool = False) -> Iterator[Permission]:
        """A mount of EFS with IAM authorization; without ClientRootAccess root is nobody there."""
        keys = {"elasticfilesystem:AccessedViaMountTarget": "true"}
        file_system = self.arn("elasticfilesystem", f"file-system/{file_system_id}")
        verbs = [
            "ClientMount",
            *(["ClientWrite"] if writes else []),
            *(["ClientRootAccess"] if as_root else []),
        ]
        for verb in verbs:
            yield Permission(f"elasticfilesystem:{verb}", file_system, keys)

    def of_sessions(self) -> Iterator[Permission]:
        """The agent of Session Manager, on an instance or, for ECS Exec, in a container."""
        for action in SESSIONS:
            yield Permission(action)

    def of_a_managed_instance(self) -> Iterator[Permission]:
        """The agent of Systems Manager on an instance."""
        yield Permission("ssm:UpdateInstanceInformation")
        yield from self.of_sessions()

    def of_a_function(self, log_group: str, *, in_vpc: bool) -> Iterator[Permission]:
        """What Lambda does with a function's role: its log, and its network interfaces."""
        stream = self.arn("logs", f"log-group:{log_group}:log-stream:1")
        for verb in ("CreateLogStream", "PutLogEvents"):
            yield Permission(f"logs:{verb}", stream)
        for action in FUNCTION_NETWORK if in_vpc else ():
            yield Permission(action)

    def _of_an_image(self, image: str, actions: tuple[str, ...]) -> Iterator[Permission]:
        match = re.match(r"(\d{12})\.dkr\.ecr\.([\w-]+)\.[\w.]+/([^:@]+)", image)
        if match is None:
            return
        account_id, region, name = match.groups()
        yield Permission("ecr:GetAuthorizationToken")
        for action in actions:
            yield Permission(action, f"arn:aws:ecr:{region}:{account_id}:repository/{name}")


def _pass(role: str, service: str) -> Permission:
    return Permission("iam:PassRole", role, {"iam:PassedToService": service})


def _roles_in(request: Request) -> Iterator[str]:
    """Every role that a request to make something hands over."""
    for name, value in request.items():
        if name in ("RoleArn", "ExecutionRoleArn"):
            yield str(value)
        elif name == "TrainingJobDefinition":
            yield from _roles_in(value)
        elif name == "TrainingJobDefinitions":
            for item in value:
                yield from _roles_in(item)

"""The account's record of who did what, against a real account: the emulator's server with nothing deployed."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.account.__main__ import settings
from local.account.api_permissions import Permission, RequestReader
from local.account.permission_record import PATH
from local.paths import ROOT, LocalPaths

START_SECONDS = 60
ACCOUNT = "000000000000"
TAG = "c" * 64
IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/images:{TAG}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/jobs"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}],
}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": "arn:aws:s3:::data/jobs/*",
        },
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::data"},
        {
            "Effect": "Allow",
            "Action": "sagemaker:CreateTrainingJob",
            "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:training-job/mine-*",
        },
        {
            "Effect": "Allow",
            "Action": "cloudwatch:PutMetricData",
            "Resource": "*",
            "Condition": {"StringEquals": {"cloudwatch:namespace": "Mine"}},
        },
        {
            "Effect": "Allow",
            "Action": "sagemaker:DeleteModel",
            "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:model/*",
            "Condition": {"StringEquals": {"aws:ResourceTag/owner": "me"}},
        },
    ],
}
SERVE = "import sys; from pathlib import Path; from local.paths import LocalPaths; from local.account.server import serve; sys.exit(serve(LocalPaths(Path(sys.argv[1]), *map(int, sys.argv[2:]))))"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class RunningAccount:
    def __init__(self, paths: LocalPaths) -> None:
        self.paths = paths

    def client(self, service: str, **credentials: str) -> Any:
        owner = {
            "aws_access_key_id": self.paths.access_key_id,
            "aws_secret_access_key": self.paths.secret_access_key,
        }
        return boto3.client(
            service,
            region_name=self.paths.region,
            endpoint_url=self.paths.endpoint_url,
            config=Config(proxies={}, retries={"max_attempts": 0}),
            **(credentials or owner),
        )

    def as_role(self, service: str) -> Any:
        found = self.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
        return self.client(
            service,
            aws_access_key_id=found["AccessKeyId"],
            aws_secret_access_key=found["SecretAccessKey"],
            aws_session_token=found["SessionToken"],
        )

    def program(self, source: str) -> None:
        """What the image's entry point runs, in the environment of these tests."""
        root = self.paths.images / TAG / "root" / "opt" / "program"
        root.mkdir(parents=True, exist_ok=True)
        (root / "main.py").write_text(source)
        described = {
            "name": "tools",
            "environment": {"AWS_REGION": self.paths.region},
            "workdir": "/opt/program",
            "entrypoint": ["python", "/opt/program/main.py"],
            "copied": ["/opt/program"],
        }
        (self.paths.images / TAG / "image.json").write_text(json.dumps(described))

    def ended(self, look: Callable[[], Any]) -> Any:
        """A task's description once it has stopped."""
        for _ in range(START_SECONDS * 5):
            found = look()
            if found["lastStatus"] == "STOPPED":
                return found
            time.sleep(0.2)
        raise AssertionError(f"not stopped: {found}")

    def record(self, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.paths.endpoint_url}{PATH}", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def verdicts(self) -> dict[tuple[str, str], str]:
        return {(call["action"], call["resource"]): call["verdict"] for call in self.record()["calls"]}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAccount]:
    ports = free_ports(4)
    port, webserver_port, flower_port, mlflow_port = ports
    paths = LocalPaths(tmp_path_factory.mktemp("account"), port, webserver_port, flower_port, mlflow_port)
    log = paths.root / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(paths.root), *map(str, ports)],
            cwd=ROOT,
            env={**os.environ, **settings(paths), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = RunningAccount(paths)
    try:
        for _ in range(START_SECONDS * 5):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{paths.endpoint_url}/_updraft/ready", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError(f"not ready after {START_SECONDS} s: {log.read_text()}")
        iam = running.client("iam")
        iam.create_role(RoleName="jobs", AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(RoleName="jobs", PolicyName="jobs", PolicyDocument=json.dumps(POLICY))
        running.client("s3").create_bucket(Bucket="data")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def fresh(account: RunningAccount) -> RunningAccount:
    account.record("DELETE")
    return account


def test_calls_of_the_owner_are_not_recorded(fresh: RunningAccount) -> None:
    fresh.client("s3").put_object(Bucket="data", Key="elsewhere/x", Body=b"x")
    assert fresh.record() == {"calls": [], "grants": {}}


def test_allowed_calls_are_told_with_the_grant_that_allows_them(fresh: RunningAccount) -> None:
    s3 = fresh.as_role("s3")
    for number in range(3):
        s3.put_object(Bucket="data", Key=f"jobs/{number}", Body=b"x" * 100)
    assert s3.get_object(Bucket="data", Key="jobs/1")["Body"].read() == b"x" * 100
    calls = {call["action"]: call for call in fresh.record()["calls"]}
    assert {action: call["verdict"] for action, call in calls.items()} == {
        "s3:PutObject": "allowed",
        "s3:GetObject": "allowed",
    }
    assert calls["s3:PutObject"]["count"] == 3
    assert calls["s3:PutObject"]["grant"] == "arn:aws:s3:::data/jobs/*"
    assert {"action": "s3:ListBucket", "resource": "arn:aws:s3:::data"} in fresh.record()["grants"][ROLE]


def test_large_upload_is_several_requests_and_one_permission(fresh: RunningAccount) -> None:
    content = bytes(range(256)) * 40_000
    s3 = fresh.as_role("s3")
    s3.upload_fileobj(io.BytesIO(content), "data", "jobs/large")
    assert fresh.verdicts() == {("s3:PutObject", "arn:aws:s3:::data/jobs/large"): "allowed"}
    fetched = io.BytesIO()
    s3.download_fileobj("data", "jobs/large", fetched)
    assert fetched.getvalue() == content


def test_call_that_no_policy_allows_is_answered_and_told(fresh: RunningAccount) -> None:
    fresh.as_role("s3").put_object(Bucket="data", Key="elsewhere/x", Body=b"x")
    fresh.as_role("ssm").describe_parameters()
    assert fresh.verdicts() == {
        ("s3:PutObject", "arn:aws:s3:::data/elsewhere/x"): "denied",
        ("ssm:DescribeParameters", "*"): "denied",
    }


def test_condition_is_held_against_the_request(fresh: RunningAccount) -> None:
    cloudwatch = fresh.as_role("cloudwatch")
    for namespace, verdict in (("Mine", "allowed"), ("Theirs", "denied")):
        fresh.record("DELETE")
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": "m", "Value": 1.0}])
        assert fresh.verdicts() == {("cloudwatch:PutMetricData", "*"): verdict}


def test_condition_is_held_against_the_tags_of_a_resource(fresh: RunningAccount) -> None:
    owner, arn = fresh.client("sagemaker"), f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/"
    for name in ("mine", "theirs"):
        owner.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE},
            Tags=[{"Key": "owner", "Value": "me" if name == "mine" else "them"}],
        )
        fresh.as_role("sagemaker").delete_model(ModelName=name)
    assert fresh.verdicts() == {
        ("sagemaker:DeleteModel", f"{arn}mine"): "allowed",
        ("sagemaker:DeleteModel", f"{arn}theirs"): "denied",
    }


def test_what_a_request_hands_over_needs_permission_too(fresh: RunningAccount) -> None:
    sagemaker = fresh.as_role("sagemaker")
    with pytest.raises(ClientError):
        sagemaker.create_training_job(
            TrainingJobName="mine-1",
            RoleArn=ROLE,
            AlgorithmSpecification={"TrainingImage": "x", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://data/out"},
            ResourceConfig={"InstanceType": "ml.none", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
            Tags=[{"Key": "a", "Value": "b"}],
        )
    job = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/mine-1"
    assert fresh.verdicts() == {
        ("sagemaker:CreateTrainingJob", job): "allowed",
        ("sagemaker:AddTags", job): "denied",
        ("iam:PassRole", ROLE): "denied",
    }


def test_bucket_that_asks_for_tls_takes_the_loopback_for_it(fresh: RunningAccount) -> None:
    refusal = {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    owner = fresh.client("s3")
    owner.put_bucket_policy(Bucket="data", Policy=json.dumps(POLICY | {"Statement": [refusal]}))
    try:
        fresh.as_role("s3").put_object(Bucket="data", Key="jobs/tls", Body=b"x")
        assert fresh.verdicts() == {("s3:PutObject", "arn:aws:s3:::data/jobs/tls"): "allowed"}
    finally:
        owner.delete_bucket_policy(Bucket="data")


def test_denial_ends_when_a_policy_allows_it(fresh: RunningAccount) -> None:
    fresh.as_role("ssm").describe_parameters()
    more = {"Effect": "Allow", "Action": "ssm:DescribeParameters", "Resource": "*"}
    iam = fresh.client("iam")
    iam.put_role_policy(
        RoleName="jobs", PolicyName="more", PolicyDocument=json.dumps(POLICY | {"Statement": [more]})
    )
    try:
        assert fresh.verdicts() == {("ssm:DescribeParameters", "*"): "allowed"}
    finally:
        iam.delete_role_policy(RoleName="jobs", PolicyName="more")


def test_wrong_signature_is_refused(fresh: RunningAccount) -> None:
    s3 = fresh.client("s3", aws_access_key_id="ASIA0000000000000000", aws_secret_access_key="wrong")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        s3.get_object(Bucket="data", Key="x")


def test_task_works_with_its_own_role_and_starts_with_the_execution_role(fresh: RunningAccount) -> None:
    iam = fresh.client("iam")
    for name in ("task", "execution"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    secret = fresh.client("secretsmanager").create_secret(Name="word", SecretString="open")["ARN"]
    fresh.client("logs").create_log_group(logGroupName="/tasks")
    fresh.program("import boto3, os; boto3.client('s3').put_object(Bucket='data', Key=os.environ['WORD'])")
    ecs = fresh.client("ecs")
    ecs.create_cluster(clusterName="c")
    role_arn = f"arn:aws:iam::{ACCOUNT}:role"
    ecs.register_task_definition(
        family="once",
        taskRoleArn=f"{role_arn}/task",
        executionRoleArn=f"{role_arn}/execution",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[
            {
                "name": "main",
                "image": IMAGE,
                "secrets": [{"name": "WORD", "valueFrom": secret}],
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "/tasks", "awslogs-stream-prefix": "p", "awslogs-region": "us-east-1"},
                },
            }
        ],
    )  # fmt: skip
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}
    [task] = ecs.run_task(
        cluster="c", taskDefinition="once", launchType="FARGATE", networkConfiguration=network
    )["tasks"]
    ended = fresh.ended(lambda: ecs.describe_tasks(cluster="c", tasks=[task["taskArn"]])["tasks"][0])
    assert ended["containers"][0]["exitCode"] == 0, ended
    done = {(call["role"].rpartition("/")[2], call["action"]) for call in fresh.record()["calls"]}
    assert {("task", "s3:PutObject"), ("execution", "secretsmanager:GetSecretValue")} <= done
    assert {("execution", "logs:CreateLogStream"), ("execution", "ecr:BatchGetImage")} <= done
    assert not {action for role, action in done if role == "task"} - {"s3:PutObject"}


READER = RequestReader(
    "eu-west-1",
    ACCOUNT,
    lambda reference: (
        f"arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/{reference}:7",
        ["arn:aws:iam::0:role/task"],
    ),
)


def test_run_task_needs_its_definition_its_roles_and_its_tags() -> None:
    request = {"cluster": "c", "taskDefinition": "worker", "tags": [{"key": "a", "value": "b"}]}
    cluster = {"ecs:cluster": f"arn:aws:ecs:eu-west-1:{ACCOUNT}:cluster/c"}
    assert READER.permissions("ecs:RunTask", request) == [
        Permission("ecs:RunTask", f"arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/worker:7", cluster),
        Permission(
            "iam:PassRole", "arn:aws:iam::0:role/task", {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        ),
        Permission(
            "ecs:TagResource",
            f"arn:aws:ecs:eu-west-1:{ACCOUNT}:task/c/new",
            {"ecs:CreateAction": "RunTask"},
        ),
    ]


@pytest.mark.parametrize(
    ("action", "request_", "resources"),
    [
        ("logs:PutLogEvents", {"logGroupName": "/g", "logStreamName": "s"}, ["logs:log-group:/g:log-stream:s"]),
        ("logs:DescribeLogStreams", {"logGroupName": "/g"}, ["logs:log-group:/g:log-stream:"]),
        ("ssm:GetParameters", {"Names": ["/a/b", "c"]}, ["ssm:parameter/a/b", "ssm:parameter/c"]),
        ("codebuild:BatchGetBuilds", {"ids": ["app:1234"]}, ["codebuild:project/app"]),
        ("ecs:DescribeTasks", {"cluster": "c", "tasks": ["1"]}, ["ecs:task/c/1"]),
        ("sagemaker:DescribeModel", {"ModelName": "m"}, ["sagemaker:model/m"]),
        ("sagemaker:ListTrainingJobs", {}, ["*"]),
    ],
)  # fmt: skip
def test_resources_of_a_request(action: str, request_: dict[str, Any], resources: list[str]) -> None:
    def arn(short: str) -> str:
        service, _, rest = short.partition(":")
        return f"arn:aws:{service}:eu-west-1:{ACCOUNT}:{rest}"

    told = [permission.resource for permission in READER.permissions(action, request_)]
    assert told == [one if one == "*" else arn(one) for one in resources]


def test_job_in_a_vpc_needs_what_sagemaker_documents() -> None:
    image = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/assets:1"
    vpc = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    actions = {permission.action for permission in READER.of_a_job({"VpcConfig": vpc}, image)}
    assert {"ec2:CreateNetworkInterfacePermission", "ec2:DescribeVpcs", "ecr:BatchGetImage"} <= actions
    outside = {permission.action for permission in READER.of_a_job({}, image)}
    assert not any(action.startswith("ec2:") for action in outside)

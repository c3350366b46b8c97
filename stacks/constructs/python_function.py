"""A Lambda function from `lambdas/{name}`, with the packages of its lock beside it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk.aws_logs import ILogGroup
from constructs import Construct

from stacks.config import ROOT, ConfigError
from stacks.constructs.log_group import log_group
from stacks.waivers import waive

LOG_RETENTION_DAYS = 30
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html: none of these takes a resource here.
NETWORK_INTERFACES = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
]


class PythonFunction(Construct):
    """`function`, and `log_group`, its own. `entry` is a function of `lambdas/{name}/handler.py`.

    `memory_size` is in MiB and has no default: Lambda's own, 128, brings a fourteenth of a CPU, on which the import of
    boto3 alone takes seconds.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        entry: str,
        timeout: cdk.Duration,
        memory_size: int,
        files: Mapping[str, Path] | None = None,
        **function_props: Any,
    ) -> None:
        super().__init__(scope, construct_id)
        self.log_group = log_group(self, "Logs", retention_days=LOG_RETENTION_DAYS)
        with tempfile.TemporaryDirectory(prefix=f"updraft-{name}-") as package:
            stage_package(Path(package), name, files or {})
            code = lambda_.Code.from_asset(package)
            # Copied into the cloud assembly when the function binds it.
            self.function = self._build_function(
                code, name=name, entry=entry, timeout=timeout, memory_size=memory_size, **function_props
            )

    def _build_function(
        self, code: lambda_.Code, *, name: str, entry: str, timeout: cdk.Duration, **function_props: Any
    ) -> lambda_.Function:
        function = lambda_.Function(
            self,
            "Function",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"lambdas.{name}.handler.{entry}",
            code=code,
            timeout=timeout,
            log_group=self.log_group,
            role=self._build_role(self.log_group, in_vpc="vpc" in function_props),
            **function_props,
        )
        waive(function, "3.13 is the newest Python that the tests run on", "AwsSolutions-L1")
        waive(
            function,
            "Invoked by a schedule or a deployment that sees its failures; at most one works, by a lock in the "
            "database; outside the VPC where it calls AWS's APIs alone",
            "NIST.800.53.R5-LambdaConcurrency",
            "NIST.800.53.R5-LambdaDLQ",
            *([] if "vpc" in function_props else ["NIST.800.53.R5-LambdaInsideVPC"]),
        )
        if function_props.get("allow_public_subnet"):
            waive(
                function, "network.nat is none: this account's APIs are reached without NAT", "LAMBDA-WAY-OUT"
            )
        return function

    def _build_role(self, logs: ILogGroup, *, in_vpc: bool) -> iam.Role:
        """AWS's own policies for this would also let it write every log group of the account."""
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        logs.grant_write(role)
        if in_vpc:
            role.add_to_policy(iam.PolicyStatement(actions=NETWORK_INTERFACES, resources=["*"]))
        return role


def stage_package(package: Path, name: str, files: Mapping[str, Path]) -> None:
    """Copy a Lambda's sources, its installed packages and extra files (by name in the package) to an empty folder."""
    source = ROOT / "lambdas" / name
    lock = source / "requirements.txt"
    if lock.is_file():
        shutil.copytree(_installed(lock), package, dirs_exist_ok=True)
    shutil.copytree(
        source, package / "lambdas" / name, ignore=shutil.ignore_patterns("__pycache__", "requirements.*")
    )
    # Modules that more than one function needs; a function takes the packages they want from its own lock.
    shutil.copytree(
        ROOT / "lambdas" / "shared",
        package / "lambdas" / "shared",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for target, path in files.items():
        shutil.copyfile(path, package / target)


def _installed(lock: Path) -> Path:
    """The packages of a lock, installed once for each version of it; all are pure Python."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    target = ROOT / ".updraft" / "lambda-packages" / digest
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent))
        arguments = [
            "install",
            "--quiet",
            "--require-hashes",
            "--no-deps",
            "--target",
            str(partial),
            "-r",
            str(lock),
        ]
        # The assembly's location goes to standard output: nothing else may.
        ran = subprocess.run(
            [*_installer(), *arguments], stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
        )
        if ran.returncode != 0:
            shutil.rmtree(partial)
            reason = " ".join(ran.stderr.split()) or f"exit code {ran.returncode}"
            raise ConfigError(
                f"the packages of {lock.relative_to(ROOT)} could not be installed: {reason}. "
                "They are installed once and need the package index that pip is set to; run the same command again."
            )
        for cache in partial.rglob("__pycache__"):
            shutil.rmtree(cache)
        partial.rename(target)
    return target


def _installer() -> list[str]:
    uv = ROOT / ".updraft" / "uv" / "bin" / "uv"
    return [str(uv), "pip"] if uv.is_file() else [sys.executable, "-m", "pip"]

"""Runs the real CDK CLI, pinned and installed under `.updraft/`, against an environment's account."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local import processes
from ops.bootstrap import NODE_DIRECTORY, ROOT, TOOLS, ensure_node, environment_python
from ops.console import OperatorError, say
from ops.own_account import ready
from ops.target import STACKS, Target, local_paths

# Lines of the CLI that tell a person how far it is; everything it prints is in the log.
TELLING = re.compile(r"^\s*(✅|❌|⏳|.*: (deploying|destroying|creating|updating)\b|.*failed)", re.IGNORECASE)
CDK = "cdk-"
# Of a stack that was never complete; one that fails at a later deployment goes back and keeps what it had.
FAILED_CREATION = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def assembly_directory(target: Target) -> Path:
    """Where an environment's synthesized cloud assembly lies."""
    if target.is_local:
        return local_paths().cloud_assembly
    return ROOT / "cdk.out" / target.name


def synth(target: Target) -> Path:
    """Synthesize every stack of an environment and return the cloud assembly's folder."""
    assembly = assembly_directory(target)
    assembly.parent.mkdir(parents=True, exist_ok=True)
    run_cdk(target, ["synth", "--quiet", "--output", str(assembly), "-c", f"environment={target.name}"])
    return assembly


def bootstrap(target: Target) -> None:
    """Make the CDK's own bucket, repository and roles in the account, once."""
    account, region = local_paths().account_id, local_paths().region
    qualifier = target.config.bootstrap_qualifier
    named = ["--qualifier", qualifier] if qualifier else []
    run_cdk(target, ["bootstrap", f"aws://{account}/{region}", *named], outside_app=True)


def deploy(target: Target, *, only: Sequence[str] = ()) -> None:
    """Deploy stacks from a synthesized assembly in the order of their dependencies: every one, or `only` these."""
    free_failed_creations(target)
    run_cdk(
        target,
        ["deploy", *_chosen(only), "--require-approval", "never", "--app", str(assembly_directory(target))]
        + ["--progress", "events", "--concurrency", "3"],
    )


def free_failed_creations(target: Target) -> None:
    """Let the CLI make those stacks again whose very first creation failed: nothing in them is anybody's data.

    The CLI deletes such a stack before it makes it anew, but it has protected the stack against that before it made
    anything in it. Raises OperatorError where the stack's database is protected too.
    """
    cloudformation = target.client("cloudformation")
    names = {f"{target.prefix}-{short}" for short in STACKS}
    stacks = [
        stack
        for page in cloudformation.get_paginator("describe_stacks").paginate()
        for stack in page["Stacks"]
        if stack["StackName"] in names and stack["StackStatus"] in FAILED_CREATION
    ]
    for stack in stacks:
        name = stack["StackName"]
        for database in _protected_databases(target, name):
            raise OperatorError(
                f"the first creation of {name} failed, and its database {database} is protected against deletion. "
                "No deployment was ever complete, so nothing of Airflow's is in it. Lift the protection, and deploy "
                f"again: aws rds modify-db-instance --region {target.config.region} "
                f"--db-instance-identifier {database} --no-deletion-protection --apply-immediately"
            )
        if stack.get("EnableTerminationProtection"):
            cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=False)
            say(f"  {name}: its first creation failed; its termination protection is lifted to make it again")


def _protected_databases(target: Target, stack: str) -> list[str]:
    """What RDS refuses to delete, of the databases that are left in a stack."""
    resources = target.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    left = [
        resource["PhysicalResourceId"]
        for resource in resources
        if resource["ResourceType"] == "AWS::RDS::DBInstance"
        and resource["ResourceStatus"] != "DELETE_COMPLETE"
        and resource.get("PhysicalResourceId")
    ]
    rds = target.client("rds")
    return [
        instance["DBInstanceIdentifier"]
        for identifier in left
        # By a filter: asked by its name, one that is gone would be an error.
        for instance in rds.describe_db_instances(
            Filters=[{"Name": "db-instance-id", "Values": [identifier]}]
        )["DBInstances"]
        if instance["DeletionProtection"]
    ]


def diff(target: Target) -> str:
    """What the synthesized stacks would change in the account, as the CDK CLI tells it."""
    return run_cdk(target, ["diff", "--app", str(assembly_directory(target))])


def destroy(target: Target, *, only: Sequence[str] = ()) -> None:
    """Destroy stacks of a synthesized assembly, the dependent ones first: every one, or `only` these."""
    run_cdk(target, ["destroy", *_chosen(only), "--force", "--app", str(assembly_directory(target))])


def _chosen(only: Sequence[str]) -> list[str]:
    return [*only, "--exclusively"] if only else ["--all"]


def end_orphans() -> None:
    """End CDK CLIs that a killed command left running; two must not work on one account."""
    for command in ("synth", "bootstrap", "deploy", "diff", "destroy"):
        processes.stop(local_paths(), f"{CDK}{command}", timeout_seconds=0)
    # The CLI's own locks outlive it, and a killed one whose parent is gone may linger as a zombie.
    for lock in local_paths().cloud_assembly.glob("*.lock"):
        lock.unlink()


def run_cdk(target: Target, arguments: list[str], *, outside_app: bool = False) -> str:
    """Run the CDK CLI and return what it printed; its milestones go to standard error on the way.

    Raises OperatorError with the last lines of its output when it fails, and when another checkout's account answers.
    """
    cdk = ensure_node()
    if target.is_local and arguments[0] != "synth":
        ready(local_paths())  # raises for the account of another checkout, whose stacks have the same names
    log = ROOT / ".updraft" / "log" / "cdk.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    command = [str(cdk), "--no-notices", "--no-version-reporting", *arguments]
    with (
        log.open("a") as record,
        subprocess.Popen(
            command,
            cwd=local_paths().root if outside_app else ROOT,
            env=_environment(target),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        if target.is_local:
            processes.record(local_paths(), f"{CDK}{arguments[0]}", process.pid, command)
        for line in process.stdout:
            text = ANSI.sub("", line.rstrip())
            record.write(text + "\n")
            lines.append(text)
            if TELLING.match(text):
                say(f"  {text}")
    if process.returncode != 0:
        tail = "\n  ".join(line for line in lines[-15:] if line)
        raise OperatorError(
            f"cdk {arguments[0]} failed with {process.returncode}:\n  {tail}\nThe whole output is in {log}"
        )
    return "\n".join(lines)


def _environment(target: Target) -> dict[str, str]:
    tools = environment_python(TOOLS).parent
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")
    }
    environment |= {
        "PATH": f"{tools}:{NODE_DIRECTORY}/node_modules/.bin:{environment['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "CDK_DISABLE_VERSION_CHECK": "1",
    }
    if target.is_local:
        paths = local_paths()
        for name in [key for key in environment if key.startswith("AWS_") and key != "AWS_CA_BUNDLE"]:
            del environment[name]
        # A home of its own: the CLI caches which access key belongs to which account.
        (paths.root / "cdk-home").mkdir(parents=True, exist_ok=True)
        environment |= {
            "HOME": str(paths.root / "cdk-home"),
            "AWS_ENDPOINT_URL": paths.endpoint_url,
            "AWS_ACCESS_KEY_ID": paths.access_key_id,
            "AWS_SECRET_ACCESS_KEY": paths.secret_access_key,
            "AWS_REGION": paths.region,
            "AWS_DEFAULT_REGION": paths.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }
    return environment

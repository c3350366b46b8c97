"""What the CodeDeploy agent of an emulated EC2 instance knows of its machine.

The instance's user data says which file systems are mounted and what the agent's environment is, in the
form that cloud-init would act on: a here-document into `/etc/updraft/environment` and a mount of EFS.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from local.efs import efs_root

if TYPE_CHECKING:
    from local.paths import LocalPaths

ENVIRONMENT_FILE = "/etc/updraft/environment"
BOOT_MOUNT = re.compile(r"ssm get-parameter [^\n]*--name (\S+)[^\n]*\n[^\n]*mount -t efs [^\n]*\":/ (\S+)")
MOUNT = re.compile(r"(fs-[0-9a-f]{8,40})\S*\s+(/[\w./-]+)")


class LogIn(Protocol):
    """How an instance reaches the account: with the role of its profile."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The credentials as variables, which stand for the metadata service."""

    def client(self, service: str) -> Any:
        """A boto3 client."""

    def mounts(self, file_system_id: str) -> None:
        """The instance mounts a file system of EFS, where its scripts write as root."""


@dataclass(frozen=True)
class Instance:
    """`folder` stands for the machine's disk, `mounts` maps its mount points to folders of this machine."""

    identifier: str
    arn: str
    folder: Path
    log_in: LogIn
    mounts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def deployment_root(self) -> Path:
        """The agent's `/opt/codedeploy-agent/deployment-root`."""
        return self.folder / "deployment-root"

    def host_path(self, path: str) -> Path:
        """Return where the machine's absolute path lies here."""
        for mount_point, host in self.mounts.items():
            if path == mount_point or path.startswith(f"{mount_point}/"):
                return host / path[len(mount_point) :].lstrip("/")
        return self.folder / "root" / path.lstrip("/")

    def hook_environment(self) -> dict[str, str]:
        """Return the agent's variables; values that are paths below a mount name folders here."""
        return {
            name: str(self.host_path(value)) if self._is_mounted(value) else value
            for name, value in self.environment.items()
        }

    def _is_mounted(self, value: str) -> bool:
        return any(value == point or value.startswith(f"{point}/") for point in self.mounts)


def matching_instances(
    ec2: Any,
    log_in: Callable[[dict[str, Any]], LogIn],
    paths: LocalPaths,
    tag_groups: list[list[dict[str, str]]],
    *,
    booted: dict[str, Instance],
) -> list[Instance]:
    """Return the running instances that match one filter of every group, with what their user data says.

    `log_in` takes an instance as described; `booted` remembers each by its id, as a machine reads its user data once.
    """
    found = []
    for page in ec2.get_paginator("describe_instances").paginate():
        for reservation in page["Reservations"]:
            for it in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in it.get("Tags", [])}
                if it["State"]["Name"] == "running" and matches(tags, tag_groups):
                    arn = f"arn:aws:ec2:{ec2.meta.region_name}:{reservation['OwnerId']}:instance/{it['InstanceId']}"
                    if it["InstanceId"] not in booted:
                        booted[it["InstanceId"]] = _instance(ec2, log_in(it), paths, it["InstanceId"], arn)
                    found.append(booted[it["InstanceId"]])
    return found


def matches(tags: Mapping[str, str], tag_groups: list[list[dict[str, str]]]) -> bool:
    """Whether the tags match one filter of every group; no group at all matches nothing."""
    return bool(tag_groups) and all(any(_matches(tags, it) for it in group) for group in tag_groups)


def parse_environment(user_data: str) -> dict[str, str]:
    """Return the variables that the user data writes to `/etc/updraft/environment`."""
    lines = iter(user_data.splitlines())
    variables: dict[str, str] = {}
    for line in lines:
        delimiter = re.search(r"<<-?\s*['\"]?(\w+)['\"]?", line)
        if ENVIRONMENT_FILE not in line or delimiter is None:
            continue
        for entry in lines:
            if entry.strip() == delimiter[1]:
                break
            name, separator, value = entry.strip().partition("=")
            if separator and re.fullmatch(r"[A-Za-z_]\w*", name):
                variables[name] = value.strip("'\"")
    return variables


def parse_mounts(user_data: str, client: Callable[[str], Any]) -> dict[str, str]:
    """Return mount points and the file system id of each EFS mount in the user data.

    An id stands in the mount's line, or is read at boot from the SSM parameter that the lines before it name.
    """
    mounts = {match[2].rstrip("/"): match[1] for match in MOUNT.finditer(user_data)}
    for parameter, point in BOOT_MOUNT.findall(user_data):
        mounts[point.rstrip("/")] = client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    return mounts


def _matches(tags: Mapping[str, str], tag_filter: dict[str, str]) -> bool:
    kind = tag_filter.get("Type", "KEY_AND_VALUE")
    key, value = tag_filter.get("Key", ""), tag_filter.get("Value", "")
    if kind == "KEY_ONLY":
        return key in tags
    if kind == "VALUE_ONLY":
        return value in tags.values()
    return tags.get(key) == value


def _instance(ec2: Any, log_in: LogIn, paths: LocalPaths, identifier: str, arn: str) -> Instance:
    attribute = ec2.describe_instance_attribute(InstanceId=identifier, Attribute="userData")
    encoded = attribute.get("UserData", {}).get("Value", "")
    user_data = base64.b64decode(encoded).decode("utf-8", "replace")
    file_systems = parse_mounts(user_data, log_in.client)
    for file_system_id in file_systems.values():
        log_in.mounts(file_system_id)
    mounts = {point: efs_root(paths, it) for point, it in file_systems.items()}
    return Instance(
        identifier=identifier,
        arn=arn,
        folder=paths.instances / identifier,
        log_in=log_in,
        mounts=mounts,
        environment=parse_environment(user_data),
    )

"""Folders of a container that stay writable while the rest of its file system is read-only."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_ecs as ecs

# Where the agent of ECS Exec, which runs as root, keeps its state and its logs.
EXEC_FOLDERS = ("/var/lib/amazon", "/var/log/amazon")


def add_writable_folders(
    definition: ecs.TaskDefinition,
    container: ecs.ContainerDefinition,
    folders: Sequence[str],
    *,
    execute_command: bool,
) -> None:
    """Mount an empty volume of the task's own over each folder, in no other container of the task.

    A volume takes its owner and mode from a `VOLUME` of the image at the same path; without one root alone may write.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
    """
    for folder in (*folders, *(EXEC_FOLDERS if execute_command else ())):
        name = f"{container.container_name}{folder.replace('/', '-')}"
        definition.add_volume(name=name)
        container.add_mount_points(ecs.MountPoint(container_path=folder, source_volume=name, read_only=False))

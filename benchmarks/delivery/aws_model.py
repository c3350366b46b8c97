"""What a push would take on AWS: a sum of assumptions that are written down, since none of it was run there."""

from __future__ import annotations

from typing import Any

# The agent's default `wait_between_runs` is one second, and it runs one lifecycle event per poll.
POLL_SECONDS = 1.0
API_SECONDS = 0.15
EVENTS = 7
# A t4g.micro and half a vCPU of Fargate beside one core of a laptop.
BASTION_SLOWDOWN = 2.0
FARGATE_SLOWDOWN = 3.0
# One file operation on EFS, and how many a file takes to be written and flushed, read back, and copied by a container.
NFS_SECONDS = 0.005
OPERATIONS_TO_STAGE, OPERATIONS_TO_COPY = 5, 3
HOOK_START_SECONDS = 0.5
HOOKS = 4


def push_on_aws(*, files: int, import_seconds: float, parse_seconds: float) -> dict[str, Any]:
    """The seconds of each phase for a release of `files` files.

    `import_seconds` and `parse_seconds` are what the import test and the parse of all files took on this machine.
    """
    phases = {
        "upload_and_create": 1.0 + 3 * API_SECONDS,
        "agent_polls": EVENTS * (POLL_SECONDS / 2 + 2 * API_SECONDS),
        "hooks_start": HOOKS * HOOK_START_SECONDS * BASTION_SLOWDOWN + 6 * API_SECONDS,
        "stage_on_efs": files * OPERATIONS_TO_STAGE * NFS_SECONDS,
        "import_test": files * OPERATIONS_TO_COPY * NFS_SECONDS + import_seconds * FARGATE_SLOWDOWN,
        "switch_seen": 1.0 + API_SECONDS,
        "parsed": files * OPERATIONS_TO_COPY * NFS_SECONDS + parse_seconds * FARGATE_SLOWDOWN,
    }
    return {
        "files": files,
        "push_seconds": round(sum(phases.values()), 1),
        "phase_seconds": {name: round(seconds, 2) for name, seconds in phases.items()},
        "assumptions": {
            "agent_poll_seconds": POLL_SECONDS,
            "api_call_seconds": API_SECONDS,
            "nfs_operation_seconds": NFS_SECONDS,
            "operations_per_staged_file": OPERATIONS_TO_STAGE,
            "operations_per_copied_file": OPERATIONS_TO_COPY,
            "bastion_slowdown": BASTION_SLOWDOWN,
            "fargate_slowdown": FARGATE_SLOWDOWN,
            "hook_start_seconds": HOOK_START_SECONDS,
        },
    }

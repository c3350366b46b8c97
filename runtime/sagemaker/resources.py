"""What a task brings to a state and leaves behind: endpoints and notebook instances."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runtime.sagemaker.kinds import is_absence

MOST_FAILED_POLLS = 20


@dataclass(frozen=True)
class ResourceKind:
    """One kind, as the API calls it; in a `moving` status it can't be changed, and leaves it by itself."""

    noun: str
    prefix: str
    status_key: str
    moving: frozenset[str]

    @property
    def name_key(self) -> str:
        return f"{self.prefix}Name"

    @property
    def describe(self) -> str:
        return f"describe_{self.noun}"


RESOURCES = {
    "endpoint": ResourceKind(
        "endpoint",
        "Endpoint",
        "EndpointStatus",
        frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}),
    ),
    "notebook": ResourceKind(
        "notebook_instance",
        "NotebookInstance",
        "NotebookInstanceStatus",
        frozenset({"Pending", "Stopping", "Updating", "Deleting", "PendingMaintenance", "InMaintenance"}),
    ),
}


def is_missing(error: ClientError) -> bool:
    """Whether an error says that there is no such resource."""
    # So a notebook instance is told to be absent.
    return is_absence(error) or "RecordNotFound" in error.response["Error"].get("Message", "")


async def settled(
    client: Any,
    kind: str,
    name: str,
    *,
    poll_seconds: float,
    deadline: float,
    tell: Callable[[str], None],
) -> bool:
    """Wait until a resource rests or is gone; False when `deadline` (seconds since 1970) came first.

    `client` is asynchronous. Raises SageMaker's error when too many polls fail in a row.
    """
    resource, last, failed_polls = RESOURCES[kind], "", 0
    while True:
        try:
            found = await getattr(client, resource.describe)(**{resource.name_key: name})
            status, failed_polls = str(found[resource.status_key]), 0
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and is_missing(error):
                tell(f"{kind} {name} is gone")
                return True
            failed_polls += 1
            if failed_polls >= MOST_FAILED_POLLS:
                raise
            tell(f"the state of {name} is unknown for now: {error}")
        else:
            if status != last:
                tell(f"{kind} {name}: {status}")
                last = status
            if status not in resource.moving:
                return True
        if time.time() >= deadline:
            return False
        await asyncio.sleep(poll_seconds)

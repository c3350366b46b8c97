"""What a cost is made of: line items of an environment, under a month's use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HOURS_PER_MONTH = 730.0
WEEKS_PER_MONTH = HOURS_PER_MONTH / 168


@dataclass(frozen=True)
class Usage:
    """A month. `awake_hours` of 730; `task_hours`: how long all tasks together ran; the rest as assumed below.

    The assumptions are stated in docs/cost.md; they make cents, not dollars.
    """

    awake_hours: float = HOURS_PER_MONTH
    task_hours: float = 0.0
    # Slot-hours of workers per task-hour, as the scaling benchmark finds for the look-ahead rule.
    slot_hours_per_task_hour: float = 2.5
    log_gib_per_service_hour: float = 0.0005
    bucket_gib: float = 5.0
    file_system_gib: float = 1.0
    image_gib: float = 2.0
    nat_gib_per_hour: float = 0.02
    sqs_requests_per_worker_hour: float = 2_000.0


@dataclass(frozen=True)
class LineItem:
    """One thing that is billed. `hourly_usd` while awake, `monthly_usd` always, `load_usd` for the month's tasks."""

    what: str
    stack: str
    logical_id: str
    hourly_usd: float = 0.0
    monthly_usd: float = 0.0
    load_usd: float = 0.0

    def cost(self, usage: Usage) -> float:
        """US dollars of a month."""
        return self.hourly_usd * usage.awake_hours + self.monthly_usd + self.load_usd


@dataclass(frozen=True)
class Resource:
    """One resource of a synthesized template."""

    stack: str
    logical_id: str
    type: str
    properties: dict[str, Any]

    def item(self, what: str, **costs: float) -> LineItem:
        """A line item of this resource."""
        return LineItem(what, self.stack, self.logical_id, **costs)


@dataclass(frozen=True)
class Environment:
    """Every resource of an environment's stacks."""

    resources: tuple[Resource, ...]

    @classmethod
    def of(cls, templates: dict[str, dict[str, Any]]) -> Environment:
        """From templates by stack name."""
        return cls(
            tuple(
                Resource(stack, logical_id, resource["Type"], resource.get("Properties", {}))
                for stack, template in sorted(templates.items())
                for logical_id, resource in sorted(template.get("Resources", {}).items())
            )
        )

    def of_type(self, resource_type: str) -> Iterator[Resource]:
        """The resources of one type."""
        return (resource for resource in self.resources if resource.type == resource_type)

    def referred(self, stack: str, reference: Any) -> Resource | None:
        """The resource of the same stack that a `Ref` or `Fn::GetAtt` leads to, if there is one."""
        name = reference
        if isinstance(reference, dict):
            name = reference.get("Ref") or (reference.get("Fn::GetAtt") or [None])[0]
        found = (item for item in self.resources if item.stack == stack and item.logical_id == name)
        return next(found, None)

"""What the account gives to the planes behind it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import boto3
from botocore.config import Config
from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.services.cloudformation import provisioners, stacks  # type: ignore[import-untyped]

from local.account.principals import RoleCredentials
from local.faults import FaultSwitch
from local.paths import LocalPaths

if TYPE_CHECKING:
    from local.account.permissions import Permissions

Response = tuple[int, dict[str, str], bytes]
ServiceHandler = Callable[[str, str, dict[str, str], bytes, dict[str, Any]], Awaitable[Response]]


class Plane(Protocol):
    """Something real that stands behind part of the account."""

    name: str

    def start(self) -> None:
        """Bring up what the account's saved state says should run; called once the account answers."""

    def stop(self) -> None:
        """End everything that was started."""

    def state(self) -> str:
        """One word for people: `running`, or what is wrong."""


@dataclass(frozen=True)
class AccountContext:
    """Paths, addresses, and ways into the emulator."""

    paths: LocalPaths
    logger: logging.Logger

    @cached_property
    def faults(self) -> FaultSwitch:
        """The faults that tests have switched on."""
        return FaultSwitch(self.paths)

    @cached_property
    def permissions(self) -> Permissions:
        """What roles did in the account, and whether they may."""
        from local.account.permissions import Permissions

        return Permissions(self.paths)

    @property
    def endpoint_url(self) -> str:
        return self.paths.endpoint_url

    @property
    def region(self) -> str:
        return self.paths.region

    @property
    def account_id(self) -> str:
        return self.paths.account_id

    def register_service(self, name: str, handler: ServiceHandler) -> None:
        """Answer a service's API with `handler(method, path, headers, body, query)`."""
        ministack_app.SERVICE_HANDLERS[name] = handler

    def register_resource_type(
        self,
        resource_type: str,
        create: Callable[..., tuple[str, dict[str, Any]]],
        update: Callable[..., tuple[str, dict[str, Any]]],
        delete: Callable[..., None],
    ) -> None:
        """Provision a CloudFormation type; the handlers may block and call the account.

        `create(logical_id, props, stack_name)` and `update(physical_id, old, new, stack_name, logical_id)` return
        the physical id and the attributes; `delete(physical_id, props)`. A handler that raises fails the stack.
        """
        provisioners._RESOURCE_HANDLERS[resource_type] = {
            "create": create,
            "update": update,
            "update_with_logical_id": True,
            "delete": delete,
        }
        run_on_worker_thread(resource_type)

    def boto3_client(self, service: str, role: RoleCredentials | None = None) -> Any:
        """A client of the account, its owner's or a role's; never call it on the account's event loop."""
        owner = {
            "aws_access_key_id": self.paths.access_key_id,
            "aws_secret_access_key": self.paths.secret_access_key,
        }
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            **(role.arguments() if role else owner),
            config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=60, proxies={}),
        )


_blocking_types: set[str] = set()


def run_on_worker_thread(resource_type: str) -> None:
    """Have a type's handlers run off the event loop, where they may wait and call the account."""
    if not _blocking_types:
        original = stacks._runs_on_worker_thread
        stacks._runs_on_worker_thread = lambda name: name in _blocking_types or original(name)
    _blocking_types.add(resource_type)

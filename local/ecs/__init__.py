"""ECS on the laptop: its API, and an engine whose containers are processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.account.context import AccountContext
    from local.ecs.plane import EcsPlane


def install(context: AccountContext) -> EcsPlane:
    """Give the account ECS's API and CloudFormation types, and return the plane behind them."""
    from local.ecs.plane import EcsPlane
    from local.ecs.resources import EcsResources
    from local.ecs.service import EcsService
    from local.ecs.sessions import Sessions
    from local.ecs.store import Store

    store = Store(context.paths.ecs / "state.json")
    service = EcsService(store, account_id=context.account_id, region=context.region)
    context.register_service("ecs", service.handle)
    context.permissions.task_roles = service.roles_of
    EcsResources(context, service, store).install()
    plane = EcsPlane(context, store)
    sessions = Sessions(service, plane.containers_of, directory=context.paths.ecs / "sessions")
    service.operations["ExecuteCommand"] = sessions.execute_command
    return plane

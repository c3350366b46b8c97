"""SageMaker on the laptop: its API, and a host that really runs the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local.account.context import AccountContext, Response
    from local.sagemaker.plane import SageMakerPlane


def install(context: AccountContext) -> SageMakerPlane:
    """Give the account SageMaker's API, and return the host behind it."""
    from local.sagemaker.plane import SageMakerPlane
    from local.sagemaker.runtime_api import PATH, Runtime
    from local.sagemaker.service import SageMakerService
    from local.sagemaker.store import Store

    store = Store(context.paths.sagemaker / "state.json")
    service = SageMakerService(store, account_id=context.account_id, region=context.region)
    runtime = Runtime(store, context.paths)

    async def handle(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Response:
        # Both APIs sign their requests as `sagemaker`; only the runtime's has a path.
        if invocation := PATH.fullmatch(path):
            return await runtime.handle(invocation[1], headers, body)
        return await service.handle(method, path, headers, body, query)

    context.register_service("sagemaker", handle)
    context.permissions.tags_of = store.tags_of
    return SageMakerPlane(context, store, service)

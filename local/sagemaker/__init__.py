"""SageMaker on the laptop: its API, and a host that really runs the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.account.context import AccountContext
    from local.sagemaker.plane import SageMakerPlane


def install(context: AccountContext) -> SageMakerPlane:
    """Give the account SageMaker's API, and return the host behind it."""
    from local.sagemaker.plane import SageMakerPlane
    from local.sagemaker.service import SageMakerService
    from local.sagemaker.store import Store

    store = Store(context.paths.sagemaker / "state.json")
    service = SageMakerService(store, account_id=context.account_id, region=context.region)
    context.register_service("sagemaker", service.handle)
    return SageMakerPlane(context, store, service)

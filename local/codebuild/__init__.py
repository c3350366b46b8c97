"""CodeBuild on the laptop: its API, and an agent that runs a buildspec's phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.account.context import AccountContext
    from local.codebuild.plane import CodeBuildPlane


def install(context: AccountContext) -> CodeBuildPlane:
    """Give the account CodeBuild's API and CloudFormation type, and return the plane behind them."""
    from local.codebuild.plane import CodeBuildPlane
    from local.codebuild.resources import PROJECT, CodeBuildResources
    from local.codebuild.service import CodeBuildService
    from local.codebuild.store import Store

    store = Store(context.paths.codebuild / "state.json")
    service = CodeBuildService(store, account_id=context.account_id, region=context.region)
    context.register_service("codebuild", service.handle)
    resources = CodeBuildResources(service)
    context.register_resource_type(PROJECT, resources.create, resources.update, resources.delete)
    return CodeBuildPlane(context, store)

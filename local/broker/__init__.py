"""ElastiCache on the laptop: embedded Redis behind the account's replication groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.account.context import AccountContext
    from local.broker.plane import BrokerPlane


def install(context: AccountContext) -> BrokerPlane:
    """Join the account's ElastiCache to a new broker plane and return the plane."""
    # The front imports this package too, in a process of its own that needs none of the account.
    from local.broker.hooks import ElastiCacheHooks, stored_node_groups
    from local.broker.plane import BrokerPlane

    plane = BrokerPlane(paths=context.paths, logger=context.logger, node_groups=stored_node_groups)
    ElastiCacheHooks(plane).install()
    return plane

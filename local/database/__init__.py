"""RDS on the laptop: embedded PostgreSQL behind the account's DB instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.account.context import AccountContext
    from local.database.plane import DatabasePlane


def install(context: AccountContext) -> DatabasePlane:
    """Join the account's RDS to a new database plane and return the plane."""
    # The fronts import this package too, in processes of their own that need none of the account.
    from local.database.hooks import RdsHooks, stored_instances
    from local.database.plane import DatabasePlane

    permissions = context.permissions
    plane = DatabasePlane(
        paths=context.paths, logger=context.logger, instances=lambda: stored_instances(permissions)
    )
    RdsHooks(plane, permissions).install()
    return plane

"""Permissions: the laptop's account lets everybody do everything, and AWS won't."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError
from ops.permissions import review


def missing(account: Account) -> Iterator[Finding]:
    """Calls that were answered here and would be refused on AWS, since no policy of the role allows them."""
    record = account.place.recorded_permissions()
    if record is None:
        raise NotApplicableError("AWS refuses by itself what a role may not do")
    found = review(record, account.config.prefix)
    for call in found.missing:
        yield Finding(
            f"{call.role} did {call.action} on {call.resource} ({call.count} times), which its policies don't allow",
            "AWS answers AccessDenied: grant it to the role in stacks/, as narrow as the call is",
        )
    for call in found.unread:
        yield Finding(
            f"{call.role} made a call that no permission is known for: {call.action}",
            "add what it needs on AWS to local/account/api_permissions.py",
        )


CHECKS = (Check("permissions", "what roles did that their policies don't allow", missing),)

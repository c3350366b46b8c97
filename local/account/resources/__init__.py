"""CloudFormation types that the emulator lacks, one module for each service."""

from __future__ import annotations

from local.account.context import AccountContext
from local.account.resources import ec2, sagemaker


def install(context: AccountContext) -> None:
    """Register every added type."""
    for module in (ec2, sagemaker):
        module.install(context)

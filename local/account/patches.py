"""Where the emulator differs from AWS's documented behaviour in what our stacks use, it is set right here.

Each patch names private functions of the pinned emulator; tests/local/account pins them.
"""

from __future__ import annotations

from typing import Any

from ministack.services import ssm  # type: ignore[import-untyped]
from ministack.services.cloudformation import provisioners  # type: ignore[import-untyped]

from local.account.context import AccountContext, run_on_worker_thread

Props = dict[str, Any]
AMI_PREFIX = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-"
AL2023_STUB = "ami-0c2023a1b2c3d4e5f"
SECRET = "AWS::SecretsManager::Secret"
# Their handlers start servers or call the account, so they must not run on its event loop.
BLOCKING = ("AWS::RDS::DBInstance", "AWS::ElastiCache::ReplicationGroup")


def install(_context: AccountContext) -> None:
    """Apply every patch."""
    secrets_are_known_by_their_arn()
    latest_images_resolve_for_every_kernel()
    for resource_type in BLOCKING:
        run_on_worker_thread(resource_type)


def secrets_are_known_by_their_arn() -> None:
    """`Ref` of a secret is its ARN on AWS; ECS's `arn:key::` form rests on it."""
    handlers = provisioners._RESOURCE_HANDLERS[SECRET]
    create, update, delete = handlers["create"], handlers["update"], handlers["delete"]

    def create_by_arn(logical_id: str, props: Props, stack_name: str) -> tuple[str, Props]:
        _name, attributes = create(logical_id, props, stack_name)
        return attributes["Arn"], attributes

    def update_by_arn(
        physical_id: str, old: Props, new: Props, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Props]:
        _name, attributes = update(_name_of(physical_id), old, new, stack_name, logical_id)
        return physical_id, attributes

    def delete_by_arn(physical_id: str, props: Props, *rest: Any) -> None:
        delete(_name_of(physical_id), props, *rest)

    handlers |= {"create": create_by_arn, "update": update_by_arn, "delete": delete_by_arn}


def _name_of(arn: str) -> str:
    """The secret's name: the ARN's last part without the six random characters that AWS adds."""
    return arn.split(":", 6)[6].rsplit("-", 1)[0] if arn.startswith("arn:") else arn


def latest_images_resolve_for_every_kernel() -> None:
    """The public parameters of Amazon Linux 2023, for both architectures and each kernel line."""
    for kernel in ("default", "6.1", "6.12"):
        for architecture in ("x86_64", "arm64"):
            ssm._PUBLIC_AMI_PARAMETERS.setdefault(f"{AMI_PREFIX}{kernel}-{architecture}", AL2023_STUB)

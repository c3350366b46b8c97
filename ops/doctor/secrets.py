"""Secrets: every service and worker must hold the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding

# What one service signs or encrypts and another one reads.
SHARED = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY", "UPDRAFT_FERNET_SECRET")
PASSWORDS = ("UPDRAFT_DATABASE_PASSWORD", "UPDRAFT_BROKER_PASSWORD")


def differing(account: Account) -> Iterator[Finding]:
    """One name, two sources: a token signed by one service is refused by the other."""
    for name in SHARED:
        sources: dict[str, list[str]] = {}
        for owner, container in account.live_containers():
            source = _source_of(container, name)
            if source is not None:
                sources.setdefault(source, []).append(owner)
        if len(sources) > 1:
            told = "; ".join(f"{', '.join(owners)}: {source}" for source, owners in sources.items())
            yield Finding(
                f"{name} differs between services, so tokens are refused with 'signature mismatch': {told}",
                f"deploy again so that every task definition names the same secret: "
                f"./updraft deploy --environment {account.config.environment}",
            )


def stale(account: Account) -> Iterator[Finding]:
    """ECS gives a container its secrets only when it starts: after a rotation, older tasks hold the old value."""
    changed_at: dict[str, datetime] = {}
    held: dict[tuple[str, str], list[str]] = {}
    for task in account.tasks:
        definition = account.definition(task["taskDefinitionArn"])
        for container in definition["containerDefinitions"]:
            for secret in container.get("secrets", []):
                if secret["name"] not in (*SHARED, *PASSWORDS):
                    continue
                arn = ":".join(secret["valueFrom"].split(":")[:7])
                if arn not in changed_at:
                    changed_at[arn] = _current_since(account, arn)
                if task["createdAt"] < changed_at[arn]:
                    held.setdefault((secret["name"], arn), []).append(task["group"].partition(":")[2])
    for (name, arn), groups in held.items():
        yield Finding(
            f"{name} was changed at {changed_at[arn]:%Y-%m-%d %H:%M:%S} UTC, after these tasks had started with the "
            f"old value: {', '.join(sorted(set(groups)))}",
            "restart them, one service after the other: aws ecs update-service --force-new-deployment; "
            "workers leave by themselves after the next deploy",
        )


def _source_of(container: dict[str, Any], name: str) -> str | None:
    for secret in container.get("secrets", []):
        if secret["name"] == name:
            return str(secret["valueFrom"])
    if any(item["name"] == name for item in container.get("environment", [])):
        return "in the clear, in the task definition"
    return None


def _current_since(account: Account, arn: str) -> datetime:
    versions = account.client("secretsmanager").list_secret_version_ids(SecretId=arn)["Versions"]
    current = [version for version in versions if "AWSCURRENT" in version.get("VersionStages", [])]
    return max(version["CreatedDate"] for version in current)  # type: ignore[no-any-return]


CHECKS = (
    Check("secrets-differ", "the secrets that services share", differing),
    Check("secrets-stale", "secrets that changed after a task started", stale),
)

"""The metadata database: available, reached only over TLS, with room, and with a certificate that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from ops.doctor.account import Account
from ops.doctor.check import Check, Finding, NotApplicableError, require_awake
from stacks.config import ROOT

CERTIFICATE_WARNING = timedelta(days=30)
LEAST_FREE_SHARE = 0.10
GIB = 2**30


def available(account: Account) -> Iterator[Finding]:
    """The instance takes connections."""
    require_awake(account)
    state = account.database["DBInstanceStatus"]
    if state == "storage-full":
        yield Finding(
            "the database's storage is full: nothing can be scheduled",
            "raise database.storage_gib in the environment's file and deploy",
        )
    elif state != "available":
        yield Finding(
            f"the database is {state}, not available",
            f"wake it when it sleeps: ./updraft wake --environment {account.config.environment}; else see its events",
        )


def tls(account: Account) -> Iterator[Finding]:
    """The server refuses connections without TLS, and takes the load metric's IAM log-in."""
    for group in account.database.get("DBParameterGroups", []):
        name = group["DBParameterGroupName"]
        value = next(
            (
                item.get("ParameterValue")
                for item in _parameters(account, name)
                if item["ParameterName"] == "rds.force_ssl"
            ),
            None,
        )
        if value != "1":
            yield Finding(
                f"rds.force_ssl is {value or 'not set'} in parameter group {name}: the database takes connections "
                "without TLS",
                f"set it to 1: aws rds modify-db-parameter-group --db-parameter-group-name {name} --parameters "
                "ParameterName=rds.force_ssl,ParameterValue=1,ApplyMethod=immediate",
            )
    if not account.database.get("IAMDatabaseAuthenticationEnabled"):
        yield Finding(
            "IAM log-in is off on the database: the load metric can't read it, so no worker starts",
            f"deploy again: ./updraft deploy --environment {account.config.environment}",
        )


def _parameters(account: Account, group: str) -> list[dict[str, Any]]:
    pages = account.client("rds").get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group)
    return [item for page in pages for item in page["Parameters"]]


def storage(account: Account) -> Iterator[Finding]:
    """At least a tenth of the storage is free."""
    free = account.metric(
        "AWS/RDS",
        "FreeStorageSpace",
        {"DBInstanceIdentifier": account.database["DBInstanceIdentifier"]},
        "Minimum",
        over=timedelta(minutes=15),
    )
    if not free:
        raise NotApplicableError("RDS has published no FreeStorageSpace in the last 15 minutes")
    total_gib = account.database["AllocatedStorage"]
    if free[-1] < LEAST_FREE_SHARE * total_gib * GIB:
        yield Finding(
            f"the database has {free[-1] / GIB:.1f} GiB of {total_gib} GiB free",
            "raise database.storage_gib in the environment's file and deploy, or clean old runs: airflow db clean",
        )


def certificate(account: Account) -> Iterator[Finding]:
    """Neither the server's certificate nor the authorities that clients trust expire soon."""
    valid_till = account.database.get("CertificateDetails", {}).get("ValidTill")
    if valid_till is not None and _expires(valid_till, account.now):
        yield Finding(
            f"the database's certificate expires on {valid_till:%Y-%m-%d}",
            "rotate it: aws rds modify-db-instance --certificate-rotation-restart",
        )
    bundles = {"database": account.config.database.ca_bundle, "broker": account.config.broker.ca_bundle}
    for name, path in bundles.items():
        if path is None:
            continue
        try:
            authorities = x509.load_pem_x509_certificates((ROOT / path).read_bytes())
        except (OSError, ValueError) as error:
            yield Finding(
                f"{name}.ca_bundle {path} can't be read: {error}", "put the authority's PEM file there"
            )
            continue
        if all(_expires(authority.not_valid_after_utc, account.now) for authority in authorities):
            last = max(authority.not_valid_after_utc for authority in authorities)
            yield Finding(
                f"{name}.ca_bundle {path}: the last of its authorities expires on {last:%Y-%m-%d}",
                "download the current bundle, put it there and deploy",
            )


def _expires(moment: datetime, now: datetime) -> bool:
    return moment - now < CERTIFICATE_WARNING


CHECKS = (
    Check("database", "the state of the metadata database", available),
    Check("database-tls", "TLS and IAM log-in of the database", tls),
    Check("database-storage", "the database's free storage", storage),
    Check("certificates", "when certificates and trusted authorities expire", certificate),
)

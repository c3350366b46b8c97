"""How a Lambda reads the metadata database: `lambdas/shared/database.py` finds its way by these."""

from __future__ import annotations

from pathlib import Path

from stacks.config import ROOT, EnvironmentConfig
from stacks.constructs.airflow_environment import METRICS_DATABASE_USER
from stacks.storage import DATABASE_NAME, StorageStack

CA_BUNDLE = "database-ca.pem"


def reader_files(config: EnvironmentConfig) -> dict[str, Path]:
    """What lies beside the handler: the authorities that the database's certificate is held against."""
    return {CA_BUNDLE: ROOT / config.database.ca_bundle}


def reader_environment(storage: StorageStack) -> dict[str, str]:
    """Where the database is, and the read-only role that logs in by IAM."""
    return {
        "UPDRAFT_DATABASE_HOST": storage.database.db_instance_endpoint_address,
        "UPDRAFT_DATABASE_PORT": storage.database.db_instance_endpoint_port,
        "UPDRAFT_DATABASE_NAME": DATABASE_NAME,
        "UPDRAFT_DATABASE_USER": METRICS_DATABASE_USER,
        "UPDRAFT_DATABASE_CA_BUNDLE": CA_BUNDLE,
    }

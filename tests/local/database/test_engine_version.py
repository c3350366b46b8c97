"""The emulated RDS takes a major version alone, as RDS does, and always tells the whole one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ministack.services import rds  # type: ignore[import-untyped]

from local.account.permissions import Permissions
from local.database.hooks import RdsHooks
from local.paths import LocalPaths


class Plane:
    """A data plane that starts nothing."""

    def port(self, _identifier: str) -> int:
        return 5432

    def start_instance(self, _spec: object) -> None: ...

    def delete_instance(self, _identifier: str) -> None: ...


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[RdsHooks]:
    yield RdsHooks(Plane(), Permissions(LocalPaths(tmp_path)))  # type: ignore[arg-type]
    for identifier in [record["DBInstanceIdentifier"] for record in rds._instances.values()]:
        del rds._instances[identifier]


def properties(version: str) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": "updraft-dev-metadata", "DBInstanceClass": "db.t4g.micro", "DBName": "airflow",
        "Engine": "postgres", "EngineVersion": version, "MasterUsername": "airflow_owner",
        "MasterUserPassword": "correct-horse", "AllocatedStorage": "20",
    }  # fmt: skip


@pytest.mark.parametrize(("asked", "told"), [("17", "17.6"), ("17.5", "17.5")])
def test_instance_of_a_template_tells_its_whole_version(hooks: RdsHooks, asked: str, told: str) -> None:
    identifier, _ = hooks.cloudformation_create("Database", properties(asked), "storage")
    assert rds._instances[identifier]["EngineVersion"] == told


def test_update_to_the_major_alone_keeps_the_instance(hooks: RdsHooks) -> None:
    old, new = properties("17.6"), properties("17")
    identifier, _ = hooks.cloudformation_create("Database", old, "storage")
    resource_id = rds._instances[identifier]["DbiResourceId"]
    assert hooks.cloudformation_update(identifier, old, new, "storage", "Database")[0] == identifier
    assert rds._instances[identifier]["EngineVersion"] == "17.6"
    assert rds._instances[identifier]["DbiResourceId"] == resource_id

"""Who imports what a deployment removes goes first; who is no longer part of the environment is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from ops.console import OperatorError
from ops.exports import importers_of_removed

KEPT, REMOVED, FOREIGN = "p-dev-storage:Kept", "p-dev-storage:Removed", "p-developers-x:Other"


@pytest.fixture
def assembly(tmp_path: Path) -> Path:
    outputs = {"A": {"Value": "a", "Export": {"Name": KEPT}}, "B": {"Value": "b"}}
    (tmp_path / "p-dev-storage.template.json").write_text(json.dumps({"Outputs": outputs}))
    for name in ("airflow", "scaling"):
        (tmp_path / f"p-dev-{name}.template.json").write_text("{}")
    return tmp_path


@pytest.fixture
def account() -> Iterator[SimpleNamespace]:
    client: Any = boto3.client(
        "cloudformation", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    with Stubber(client) as stubber:
        yield SimpleNamespace(client=client, stubber=stubber)
        stubber.assert_no_pending_responses()


def exports(account: SimpleNamespace, *names: str) -> None:
    found = [
        {
            "Name": name,
            "Value": "v",
            "ExportingStackId": f"arn:aws:cloudformation:us-east-1:1:stack/{name.split(':')[0]}/i",
        }
        for name in names
    ]
    account.stubber.add_response("list_exports", {"Exports": found}, {})


def test_importers_of_what_is_removed_are_named_once(assembly: Path, account: SimpleNamespace) -> None:
    exports(account, KEPT, REMOVED, REMOVED + "2", FOREIGN)
    for name, importers in (
        (REMOVED, ["p-dev-scaling", "p-dev-airflow"]),
        (REMOVED + "2", ["p-dev-scaling"]),
    ):
        account.stubber.add_response("list_imports", {"Imports": importers}, {"ExportName": name})
    assert importers_of_removed(account.client, assembly, "p-dev") == ["p-dev-airflow", "p-dev-scaling"]


def test_export_that_nobody_imports_is_in_nobodys_way(assembly: Path, account: SimpleNamespace) -> None:
    exports(account, REMOVED)
    account.stubber.add_client_error(
        "list_imports", "ValidationError", f"Export '{REMOVED}' is not imported by any stack."
    )
    assert importers_of_removed(account.client, assembly, "p-dev") == []


def test_first_deployment_asks_for_no_imports(assembly: Path, account: SimpleNamespace) -> None:
    exports(account, FOREIGN)
    assert importers_of_removed(account.client, assembly, "p-dev") == []


def test_stack_that_left_the_environment_has_to_be_deleted_before(
    assembly: Path, account: SimpleNamespace
) -> None:
    exports(account, REMOVED)
    account.stubber.add_response(
        "list_imports", {"Imports": ["p-dev-tracking", "p-dev-airflow"]}, {"ExportName": REMOVED}
    )
    with pytest.raises(OperatorError, match=r"delete-stack --stack-name p-dev-tracking$") as refused:
        importers_of_removed(account.client, assembly, "p-dev")
    assert "p-dev-airflow" not in str(refused.value)

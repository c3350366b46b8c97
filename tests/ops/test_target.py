"""In which account an environment is looked for."""

from pathlib import Path
from typing import Any

import pytest

from ops import target as targets
from ops.console import OperatorError

OURS, OTHERS = "111111111111", "222222222222"


def account(came: str) -> dict[str, Any]:
    stack = {
        "StackName": "updraft-dev-airflow", "CreationTime": "2026-01-02T00:00:00Z",
        "StackStatus": "CREATE_COMPLETE", "Outputs": [{"OutputKey": "ClusterName", "OutputValue": "x"}],
    }  # fmt: skip
    return {
        "GetCallerIdentity": lambda _: {"Account": came},
        "DescribeStacks": lambda _: {"Stacks": [stack]},
    }


def test_another_account_than_the_files_is_refused_by_both_names(target: Any) -> None:
    to = target(account(OTHERS), account=OURS)
    with pytest.raises(OperatorError, match=f"'dev' is in account {OURS}.* of account {OTHERS}.*AWS_PROFILE"):
        assert to.outputs_found
    assert to.requests("DescribeStacks") == []


def test_account_that_the_file_names_is_asked_for_once(target: Any) -> None:
    to = target(account(OURS), account=OURS)
    assert [to.outputs_found["airflow"] for _ in range(2)] == [{"ClusterName": "x"}] * 2
    assert len(to.requests("GetCallerIdentity")) == 1


def test_environment_without_an_account_is_looked_for_wherever_the_credentials_are(target: Any) -> None:
    to = target(account(OTHERS))
    assert to.outputs_found == {"airflow": {"ClusterName": "x"}}
    assert to.requests("GetCallerIdentity") == []


def test_each_environment_may_have_a_profile_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[reader]\naws_access_key_id = of-the-reader\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-shell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    keys = [
        targets.target_of(name, profile=profile).session.get_credentials().access_key
        for name, profile in (("prod", None), ("dev", "reader"))
    ]
    assert keys == ["of-the-shell", "of-the-reader"]
    with pytest.raises(OperatorError, match=r"profile \(writer\) could not be found. Log in to AWS"):
        assert targets.target_of("dev", profile="writer").outputs

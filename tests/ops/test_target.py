"""In which account an environment is looked for, and who may be sent its administrator's password."""

import json
from pathlib import Path
from typing import Any

import pytest

from local import processes
from local.ports import free_port
from ops import lineage
from ops import target as targets
from ops.console import OperatorError
from stacks.sections import Tracking

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


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which processes of this checkout's platform run; none at first."""
    found: list[str] = []
    monkeypatch.setattr(processes, "is_running", lambda _paths, name: name in found)
    monkeypatch.delenv(targets.AIRFLOW_URL, raising=False)
    return found


class Airflow:
    """Remembers who would have been sent what."""

    def __init__(self, url: str, *, username: str, password: str, hint: str) -> None:
        assert (username, password) == ("admin", "secret")
        assert hint
        self.url = url


@pytest.fixture
def log_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "AirflowApi", Airflow)


def deployed(target: Any) -> Any:
    secret = json.dumps({"username": "admin", "password": "secret"})
    to = target({"GetSecretValue": lambda _: {"SecretString": secret}}, tracking=Tracking(enabled=True))
    to.outputs["airflow"]["AdminSecretArn"] = "arn"
    return to


@pytest.mark.usefixtures("log_ins")
def test_password_is_not_sent_to_the_laptops_own_platform(
    target: Any, running: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = deployed(target)
    assert to.airflow().url == "http://127.0.0.1:8080"
    running.append("account")
    for url in ("", "http://127.0.0.1:8080", "http://localhost:8080/"):
        monkeypatch.setenv(targets.AIRFLOW_URL, url)
        with pytest.raises(
            OperatorError, match=r"this laptop's own platform.*updraft down.*--local-port 8081"
        ):
            to.airflow()
    monkeypatch.setenv(targets.AIRFLOW_URL, "http://127.0.0.1:8081")
    assert to.airflow().url == "http://127.0.0.1:8081"
    with pytest.raises(OperatorError, match=r"at http://127.0.0.1:5000 is this laptop's own platform"):
        lineage.read(to, "x")


@pytest.mark.usefixtures("log_ins", "running")
@pytest.mark.parametrize(
    "url", ["https://airflow.example.com", "https://x:8443/", "http://[::1]:1", "http://localhost:1"]
)
def test_password_goes_over_tls_or_stays_on_this_machine(
    target: Any, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(targets.AIRFLOW_URL, url)
    assert deployed(target).airflow().url == url.rstrip("/")


@pytest.mark.usefixtures("log_ins", "running")
@pytest.mark.parametrize(
    "url",
    [
        "http://airflow.example.com", "http://127.0.0.1.example.com", "127.0.0.1:8081", "https://", "https://x/path",
        "https://user:word@x", "https://x?q=1", "http://127.0.0.1:many", "http://[::1", "ftp://127.0.0.1",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_with_what_is_allowed(
    target: Any, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(targets.AIRFLOW_URL, url)
    to = deployed(target)
    with pytest.raises(OperatorError) as caught:
        to.airflow()
    assert repr(url) in str(caught.value)
    assert "allowed are http://127.0.0.1:PORT" in str(caught.value)
    assert to.requests("GetSecretValue") == []


@pytest.mark.usefixtures("running")
def test_missing_tunnel_is_named(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv(targets.AIRFLOW_URL, url)
    with pytest.raises(
        OperatorError, match=f"no answer from the webserver at {url}: .*./updraft tunnel --environment dev"
    ):
        deployed(target).airflow()


@pytest.mark.usefixtures("log_ins")
def test_laptops_environment_needs_no_variable(
    target: Any, running: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(targets.AIRFLOW_URL, "http://127.0.0.1:8081")
    running.append("account")
    to = target(deployed(target).answers, account="000000000000")
    to.outputs["airflow"]["AdminSecretArn"] = "arn"
    assert to.airflow().url == "http://127.0.0.1:8080"

"""What the command line tells of a task's log."""

from typing import Any

import pytest

from ops.airflow_api import AirflowApi

ENTRIES: list[Any] = [
    "a line of an older log",
    {"timestamp": "2026-11-21T10:00:00Z", "event": "Task failed with exception", "error_detail": [
        {"exc_type": "DataQualityError", "exc_value": "2 violations:\n- a\n- b", "frames": []},
        {"exc_type": "ValueError", "exc_value": "the cause", "is_cause": True},
    ]},
    {"timestamp": None, "event": "::endgroup::", "error_detail": None},
]  # fmt: skip


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> AirflowApi:
    def answer(_self: AirflowApi, method: str, *_: Any, **__: Any) -> Any:
        return {"access_token": "token"} if method == "POST" else {"content": ENTRIES}

    monkeypatch.setattr(AirflowApi, "_send", answer)
    return AirflowApi("http://127.0.0.1:8080", username="admin", password="secret")


def test_log_of_a_failed_task_says_why_it_failed(api: AirflowApi) -> None:
    assert list(api.task_log("d", "r", "t", 1)) == [
        "a line of an older log",
        "2026-11-21T10:00:00Z Task failed with exception",
        "DataQualityError: 2 violations:",
        "- a",
        "- b",
        "ValueError: the cause",
        "::endgroup::",
    ]

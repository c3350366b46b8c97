"""The account's state on disk: the emulator reads back what was saved, and is not kept from answering meanwhile."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.core import persistence, responses  # type: ignore[import-untyped]
from ministack.services import cloudwatch_logs  # type: ignore[import-untyped]

from local.account import saving
from local.account.patches import state_of_the_logs
from local.account.saving import PIECE_ITEMS, SAVE_PAUSE_FACTOR, StateSaver, pieces, wrapped

GROUP, STREAM = "/updraft/test/scheduler", "scheduler/1"
TEXTS = st.text(max_size=8)
STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.integers(), inner, max_size=4),
)


@pytest.fixture
def saver(tmp_path: Path) -> StateSaver:
    return StateSaver(tmp_path, logging.getLogger("test"))


@pytest.fixture
def logs() -> Iterator[Any]:
    """The emulator's logs with one group and an empty stream."""
    for operation, request in (("CreateLogGroup", {}), ("CreateLogStream", {"logStreamName": STREAM})):
        asked(operation, **request)
    yield cloudwatch_logs
    cloudwatch_logs.reset()


def asked(operation: str, **request: Any) -> dict[str, Any]:
    headers = {"x-amz-target": f"Logs_20140328.{operation}"}
    body = json.dumps({"logGroupName": GROUP, **request}).encode()
    status, _headers, answer = asyncio.run(cloudwatch_logs.handle_request("POST", "/", headers, body, {}))
    assert status == 200, answer
    return dict(json.loads(answer or "{}"))


def lines(count: int) -> list[dict[str, Any]]:
    return [{"timestamp": 1_790_000_000_000 + number, "message": f"line {number}"} for number in range(count)]


def messages() -> list[str]:
    found = asked("GetLogEvents", logStreamName=STREAM, startFromHead=True, limit=10_000)
    return [event["message"] for event in found["events"]]


def loaded(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the emulator reads from the file at its next start."""
    monkeypatch.setattr(persistence, "PERSIST_STATE", True)
    monkeypatch.setattr(persistence, "STATE_DIR", str(directory))
    return persistence.load_state(name)


@given(STATES)
def test_pieces_are_the_same_json(state: Any) -> None:
    whole = json.dumps(state, default=persistence._json_default)
    assert json.loads("".join(pieces(state))) == json.loads(whole)


@pytest.mark.parametrize("count", [0, 1, PIECE_ITEMS, PIECE_ITEMS + 1, 3 * PIECE_ITEMS])
def test_long_list_is_encoded_piece_by_piece(count: int) -> None:
    found = list(pieces({"events": list(range(count))}))
    assert json.loads("".join(found)) == {"events": list(range(count))}
    assert max(piece.count(", ") for piece in found) <= PIECE_ITEMS


def test_logs_come_back_without_the_records_that_a_query_makes_again(
    saver: StateSaver, logs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked("PutLogEvents", logStreamName=STREAM, logEvents=lines(2 * PIECE_ITEMS))
    asyncio.run(saver.save("cloudwatch_logs", state_of_the_logs))
    logs.reset()
    state = loaded(tmp_path, "cloudwatch_logs", monkeypatch)
    assert "log_records" not in state
    logs.load_persisted_state(state)
    assert messages() == [f"line {number}" for number in range(2 * PIECE_ITEMS)]


def test_scoped_tables_keep_account_and_region(
    saver: StateSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = responses.AccountRegionScopedDict()
    table["one"] = {"body": b"\xff\x00"}
    asyncio.run(saver.save("kms", lambda: {"keys": table}))
    found = loaded(tmp_path, "kms", monkeypatch)
    assert dict(found["keys"]._data) == dict(table._data)


def test_service_without_state_keeps_what_was_saved(saver: StateSaver, tmp_path: Path) -> None:
    (tmp_path / "iam.json").write_text("saved before")
    asyncio.run(saver.save("iam", lambda: None))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("iam.json", "saved before")]


def test_failure_on_the_way_leaves_the_older_file(saver: StateSaver, tmp_path: Path) -> None:
    (tmp_path / "iam.json").write_text("saved before")
    with pytest.raises(TypeError, match="not JSON serializable"):
        asyncio.run(saver.save("iam", lambda: {"first": 1, "second": object()}))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("iam.json", "saved before")]


def test_account_answers_between_the_pieces(
    saver: StateSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that come while the logs are saved: the file holds whole JSON, with or without them."""
    monkeypatch.setattr(saving, "ANSWER_SECONDS", 0.0)
    state: dict[str, Any] = {"events": [0] * 2 * PIECE_ITEMS, "groups": {}}

    async def write_and_save() -> int:
        save = asyncio.create_task(saver.save("logs", lambda: state))
        answers = 0
        while not save.done():
            await asyncio.sleep(0)
            answers += 1
            state["events"].append(answers)
            state["groups"][str(answers)] = answers
        await save
        return answers

    assert asyncio.run(write_and_save()) > 3
    assert set(json.loads((tmp_path / "logs.json").read_text())) == set(wrapped("logs", state))


def test_one_service_that_cannot_be_saved_does_not_keep_the_others_from_it(
    saver: StateSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    services = {"broken": lambda: {"value": object()}, "iam": lambda: {"value": 1}}
    monkeypatch.setattr(ministack_app, "_build_persistence_save_dict", lambda: services)
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0)

    async def save_once() -> None:
        also = asyncio.Event()
        running = asyncio.create_task(saver.run(also=also.set))
        await asyncio.wait_for(also.wait(), 10)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(save_once())
    assert json.loads((tmp_path / "iam.json").read_text())["payload"] == {"value": 1}
    assert "broken was not saved" in caplog.text


def test_state_that_takes_long_to_save_is_saved_more_seldom(
    saver: StateSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    saved: list[str] = []

    def taking(name: str, seconds: float) -> Any:
        def get_state() -> dict[str, Any]:
            saved.append(name)
            clock[0] += seconds
            return {}

        return get_state

    def save_both() -> None:
        asyncio.run(saver.save("logs", taking("logs", 2.0)))
        asyncio.run(saver.save("iam", taking("iam", 0.1)))

    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    save_both()
    save_both()
    assert saved == ["logs", "iam", "iam"]
    clock[0] += 2.0 * SAVE_PAUSE_FACTOR
    save_both()
    assert saved[-2:] == ["logs", "iam"]

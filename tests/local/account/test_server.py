"""The account's front: what it does itself before the emulator is asked, and what it makes of the emulator's answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ministack import app as ministack_app  # type: ignore[import-untyped]

from local import processes
from local.account.server import Account, serve
from local.paths import LocalPaths


class Emulator:
    """Stands for the emulator: keeps what it was asked, answers with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[str] = []

    async def __call__(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        self.asked.append(str(dict(scope["headers"])[b"x-amz-target"], "latin-1"))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b'{"from": "the emulator"}'})


def answer(account: Account, target: str) -> tuple[int, dict[str, Any]]:
    """Status and body that a caller gets."""
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"x-amz-target", target.encode())]}
    asyncio.run(account._answer(scope, receive, send))
    return messages[0]["status"], json.loads(messages[1]["body"])


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(LocalPaths(tmp_path))


def put(account: Account, **faults: Any) -> None:
    account._context.faults.put(json.dumps(faults).encode())


def test_creation_is_done_and_its_answer_is_lost(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = Emulator(200)
    monkeypatch.setattr(ministack_app, "app", emulator)
    put(account, sagemaker_creations_unanswered_share=1)
    status, body = answer(account, "SageMaker.CreateTrainingJob")
    assert (status, body["__type"]) == (500, "InternalFailure")
    assert answer(account, "SageMaker.DescribeTrainingJob") == (200, {"from": "the emulator"})
    assert emulator.asked == ["SageMaker.CreateTrainingJob", "SageMaker.DescribeTrainingJob"]


def test_refusal_of_a_creation_is_heard(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ministack_app, "app", Emulator(400))
    put(account, sagemaker_creations_unanswered_share=1)
    assert answer(account, "SageMaker.CreateTrainingJob") == (400, {"from": "the emulator"})


def test_throttled_call_is_not_done(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = Emulator(200)
    monkeypatch.setattr(ministack_app, "app", emulator)
    put(account, sagemaker_throttled_share=1)
    status, body = answer(account, "SageMaker.CreateTrainingJob")
    assert (status, body["__type"], emulator.asked) == (400, "ThrottlingException", [])


def test_old_state_is_closed_to_others_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_further(*_: object, **__: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(processes, "reap", no_further)
    tmp_path.chmod(0o755)
    with pytest.raises(InterruptedError):
        serve(LocalPaths(tmp_path))
    assert tmp_path.stat().st_mode & 0o777 == 0o700

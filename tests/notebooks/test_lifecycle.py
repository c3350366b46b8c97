"""The notebook instance brings what is new, and stops when nothing runs on it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from notebooks import lifecycle

NOW = 1_800_000_000.0


def _iso(seconds_ago: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat().replace("+00:00", "Z")


def _jupyter(kernels: list[dict[str, Any]], terminals: list[dict[str, Any]]) -> Any:
    return {"kernels": kernels, "terminals": terminals}.__getitem__


class FakeInstance:
    """In service after some describes; refuses to stop before, as SageMaker does. `failures` are answered first."""

    def __init__(self, pending: int = 0, failures: list[Exception] | None = None) -> None:
        self.pending = pending
        self.failures = failures or []
        self.stopped: list[str] = []

    def describe_notebook_instance(self, NotebookInstanceName: str) -> dict[str, str]:
        assert NotebookInstanceName == "updraft-dev-notebook"
        if self.failures:
            raise self.failures.pop(0)
        self.pending -= 1
        return {"NotebookInstanceStatus": "Pending" if self.pending >= 0 else "InService"}

    def stop_notebook_instance(self, NotebookInstanceName: str) -> None:
        assert self.pending < 0, "told to stop while it was pending"
        self.stopped.append(NotebookInstanceName)


def test_first_start_ends_once_the_instance_is_in_service() -> None:
    instance = FakeInstance(pending=3)
    lifecycle.stop_instance("updraft-dev-notebook", instance, sleep=lambda _seconds: None)
    assert instance.stopped == ["updraft-dev-notebook"]


def test_instance_that_cannot_reach_aws_asks_again_after_another_look() -> None:
    night: list[Exception] = [ConnectTimeoutError(endpoint_url="https://api.sagemaker")] * 500
    instance = FakeInstance(failures=[*night, ClientError({"Error": {"Code": "ThrottlingException"}}, "")])
    looks: list[list[str]] = []
    slept: list[float] = []
    lifecycle.stop_instance(
        "updraft-dev-notebook",
        instance,
        wait=lambda: looks.append(list(instance.stopped)),
        sleep=slept.append,
    )
    assert instance.stopped == ["updraft-dev-notebook"]
    assert looks == [[]] * 502
    assert slept == [lifecycle.POLL_SECONDS] * 501


def test_what_a_user_changed_stays(tmp_path: Path) -> None:
    (tmp_path / "flights.ipynb").write_text("mine")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("flights.ipynb", "theirs")
        archive.writestr("more.ipynb", "new")
    assert lifecycle.bring(packed.getvalue(), tmp_path) == ["more.ipynb"]
    assert (tmp_path / "flights.ipynb").read_text() == "mine"


def test_busy_kernel_is_never_idle() -> None:
    kernels = [{"execution_state": "busy", "last_activity": _iso(9e6)}]
    assert lifecycle.idle_seconds(_jupyter(kernels, []), now=NOW, since=NOW - 9e6) == 0.0


@given(st.lists(st.floats(0, 1e6), max_size=4), st.lists(st.floats(0, 1e6), max_size=4), st.floats(0, 1e6))
def test_idle_since_the_last_of_everything(kernels: list[float], terminals: list[float], up: float) -> None:
    answer = _jupyter(
        [{"execution_state": "idle", "last_activity": _iso(ago)} for ago in kernels],
        [{"last_activity": _iso(ago)} for ago in terminals],
    )
    found = lifecycle.idle_seconds(answer, now=NOW, since=NOW - up)
    assert found == pytest.approx(min([up, *kernels, *terminals]), abs=1e-3)


def test_jupyter_that_does_not_answer_is_idle() -> None:
    def ask(_what: str) -> Any:
        raise ConnectionRefusedError

    assert lifecycle.idle_seconds(ask, now=NOW, since=NOW - 100) == 100


def test_watch_waits_as_long_as_somebody_works() -> None:
    clock = [NOW]
    busy_until = NOW + 1000

    def ask(what: str) -> Any:
        if what == "terminals":
            return []
        state = "busy" if clock[0] < busy_until else "idle"
        return [{"execution_state": state, "last_activity": _iso(-min(clock[0] - NOW, 1000))}]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    lifecycle.watch(600, ask, since=NOW, clock=lambda: clock[0], sleep=sleep)
    ended = clock[0]
    assert busy_until + 600 <= ended < busy_until + 600 + 2 * lifecycle.POLL_SECONDS
    # Another look, after a stop that failed, waits for nothing more.
    lifecycle.watch(600, ask, since=NOW, clock=lambda: clock[0], sleep=sleep)
    assert clock[0] == ended

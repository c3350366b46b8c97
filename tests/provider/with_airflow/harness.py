"""Running an operator as a worker and a triggerer do, and the register of cases."""

from __future__ import annotations

import asyncio
import copy
import csv
import inspect
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred

from tests.provider.names import BUCKET, NEIGHBOURS_IMAGE, ROLE_NAME

Record = dict[str, Any]
Check = Callable[[str], Any]
INSTANCE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
# Longer than any case waits, on a machine that does much else.
STOPPING = {"MaxRuntimeInSeconds": 3600}
TIMES_FASTER = 10
LIMIT_SECONDS = 600
HOME = Path(os.environ["AIRFLOW_HOME"])
_numbers = itertools.count(1)


@dataclass
class Register:
    """What is to be run: for each operator and mode, or for several modes at once, a function."""

    cases: list[tuple[type, tuple[str, ...], Check]] = field(default_factory=list)

    def case(self, operator: type, *modes: str) -> Callable[[Check], Check]:
        """Run the function once for each mode, with the mode."""

        def add(check: Check) -> Check:
            self.cases += [(operator, (mode,), check) for mode in modes]
            return check

        return add

    def together(self, operator: type, *modes: str) -> Callable[[Check], Check]:
        """Run the function once; it shows every one of the modes."""

        def add(check: Check) -> Check:
            self.cases.append((operator, modes, check))
            return check

        return add


register = Register()


class Gate:
    """A job that was given a closed gate is at work until it is opened."""

    def __init__(self) -> None:
        self._file = Path(tempfile.mkdtemp(dir=HOME), "open")
        # What looks like a path of the container would be taken for one.
        self.name = str(self._file.relative_to("/"))

    def open(self) -> None:
        self._file.touch()


def logged(text: str) -> bool:
    """Whether the tasks of this process have logged something; their log is what the process prints."""
    return text in (HOME / "log").read_text(errors="replace")


def hurry() -> None:
    """Let time pass faster for what waits for SageMaker at fixed intervals: boto's waiters and the provider's hook."""
    clock = SimpleNamespace(
        sleep=lambda seconds: time.sleep(seconds / TIMES_FASTER),
        monotonic=lambda: time.monotonic() * TIMES_FASTER,
    )
    for module in ("botocore.waiter", "airflow.providers.amazon.aws.hooks.sagemaker"):
        mock.patch(f"{module}.time", clock).start()


@cache
def client(service: str = "sagemaker") -> Any:
    """A client of the account, which every thread may use; to make one costs more than what it does here."""
    return boto3.session.Session().client(service)


def name_of(what: str) -> str:
    """A name that no other case has."""
    return f"{what.lower()}-{next(_numbers)}"


class TaskInstance:
    """The part of a task instance that the operators use."""

    map_index = -1

    def __init__(self, task: BaseOperator) -> None:
        self.task = task
        self.xcoms: Record = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def get_first_reschedule_date(self, _context: Any) -> None:
        return None


def run(operator: type, mode: str, *, gate: Gate | None = None, **arguments: Any) -> Any:
    """Execute as a worker does. What defers has its trigger run as a triggerer does, and a new operator goes on.

    The gate is open for an operator that waits itself; for one that defers it is opened once it has.
    """
    gate = gate or Gate()
    if mode == "sync":
        gate.open()

    def make() -> BaseOperator:
        deferrable = {"deferrable": mode == "deferrable"} if takes_deferrable(operator) else {}
        # An operator changes its config, and each worker has its own.
        return operator(task_id="task", **deferrable, **copy.deepcopy(arguments))

    task = make()
    try:
        result = task.execute({"ti": TaskInstance(task)})
    except TaskDeferred as deferred:
        assert mode == "deferrable", "it deferred, and was to wait"
        gate.open()
        event = asyncio.run(_fire(deferred.trigger))
        task = make()
        kwargs = {**(deferred.kwargs or {}), "event": event}
        return task.resume_execution(deferred.method_name, kwargs, {"ti": TaskInstance(task)})
    assert mode == "sync", "it was to defer, and did not"
    return result


def takes_deferrable(operator: type) -> bool:
    """Whether an operator or a sensor has a deferrable mode."""
    return "deferrable" in inspect.signature(operator).parameters


async def _fire(trigger: Any) -> Any:
    """The first event of a trigger that was made from its serialized form, as a triggerer makes it."""
    _, kwargs = trigger.serialize()
    again = type(trigger)(**json.loads(json.dumps(kwargs)))
    async with asyncio.timeout(LIMIT_SECONDS):
        async for event in again.run():
            return event.payload
    raise AssertionError("the trigger ended without an event")


def sense(sensor: type, gate: Gate, **arguments: Any) -> None:
    """On something that is at work: `reschedule` frees its slot, `poke` waits to the end, and then both are done."""
    arguments |= {"task_id": "task", "poke_interval": 0.5}
    waiting = {mode: sensor(mode=mode, **arguments) for mode in ("reschedule", "poke")}
    contexts = {mode: {"ti": TaskInstance(task)} for mode, task in waiting.items()}
    try:
        waiting["reschedule"].execute(contexts["reschedule"])
    except AirflowRescheduleException:
        pass
    else:
        raise AssertionError("it saw the end of what is at work")
    gate.open()
    waiting["poke"].execute(contexts["poke"])
    sensor(mode="reschedule", **arguments).execute(contexts["reschedule"])


def fails(says: str, run_it: Callable[[], Any], error: type[Exception] = Exception) -> Exception:
    """The error that was raised, which must say something."""
    try:
        run_it()
    except error as raised:
        assert says in str(raised), f"{says!r} is not in {raised}"
        return raised
    raise AssertionError(f"nothing was raised; wanted {says!r}")


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        time.sleep(0.2)


# Data, and the requests that several cases make


def put(key: str, text: str | bytes) -> str:
    """An object of the bucket; returns its URI."""
    client("s3").put_object(Bucket=BUCKET, Key=key, Body=text)
    return f"s3://{BUCKET}/{key}"


def get(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bytes(client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


def rows_of(uri: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(get(uri).decode())))


# Two classes that lie far apart: whoever has learnt answers right.
LEARN = "".join(f"{label},{label * 10 + step},{label * 10 - step}\n" for label in (0, 1) for step in range(4))
ASK = "0.5,0.5\n10.5,9.5\n1,-1\n"
ANSWERS = [0.0, 1.0, 0.0]


def answered(body: bytes) -> list[float]:
    """The classes in the answers of the program `neighbours`, one JSON document on a line."""
    documents = [json.loads(line) for line in body.splitlines()]
    return [each["predicted_label"] for document in documents for each in document["predictions"]]


def channel(name: str, text: str) -> Record:
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": put(f"{name_of('channel')}/{name}.csv", text),
        "S3DataDistributionType": "FullyReplicated",
    }
    return {
        "ChannelName": name,
        "CompressionType": "None",
        "ContentType": "text/csv",
        "DataSource": {"S3DataSource": source},
    }


def training_config(name: str, gate: Gate, **parameters: str) -> Record:
    """A training; its role by its name alone, as the provider allows."""
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": NEIGHBOURS_IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {"k": "3", "sample_size": "600", "until": gate.name} | parameters,
        "InputDataConfig": [channel("train", LEARN)],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models/"},
        "ResourceConfig": dict(INSTANCE),
        "RoleArn": ROLE_NAME,
        "StoppingCondition": dict(STOPPING),
    }

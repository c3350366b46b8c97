"""Ships what containers print to the CloudWatch log streams that their task definitions name."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from local.account.context import AccountContext
from local.account.principals import RoleCredentials
from local.ecs.containers import Container
from local.ecs.store import Record

SHIP_SECONDS = 1.0
MOST_BYTES = 256 * 1024
LONGEST_LINE = 16 * 1024


@dataclass
class _Stream:
    group: str
    name: str
    file: Path
    role: RoleCredentials | None
    offset: int = 0


class LogShipper:
    """Reads the files that processes write to, from where it stopped last."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ecs-logs", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """Ship what is left, and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        for stream in list(self._streams.values()):
            self._ship(stream)

    def add(self, container: Container, task: Record, role: RoleCredentials | None) -> None:
        """Follow a container's output with the task's execution role; only the `awslogs` driver has a stream."""
        settings = container.definition.get("logConfiguration", {})
        if settings.get("logDriver") != "awslogs":
            return
        options = settings["options"]
        task_id = task["taskArn"].rpartition("/")[2]
        name = f"{options['awslogs-stream-prefix']}/{container.definition['name']}/{task_id}"
        client = self._context.boto3_client("logs", role)
        client.create_log_stream(logGroupName=options["awslogs-group"], logStreamName=name)
        with self._lock:
            self._streams[container.name] = _Stream(options["awslogs-group"], name, container.log_file, role)

    def finish(self, container: Container) -> None:
        """Ship a container's last words and forget it."""
        with self._lock:
            stream = self._streams.pop(container.name, None)
        if stream:
            self._ship(stream)

    def _run(self) -> None:
        while not self._stopping.wait(SHIP_SECONDS):
            with self._lock:
                streams = list(self._streams.values())
            for stream in streams:
                self._ship(stream)

    def _ship(self, stream: _Stream) -> None:
        try:
            with stream.file.open("rb") as handle:
                handle.seek(stream.offset)
                data = handle.read(MOST_BYTES)
            complete = data[: data.rfind(b"\n") + 1] if b"\n" in data else b""
            if not complete:
                return
            now = int(time.time() * 1000)
            lines = complete.decode("utf-8", "replace").splitlines()
            events = [{"timestamp": now, "message": line[:LONGEST_LINE]} for line in lines if line]
            if events:
                self._context.boto3_client("logs", stream.role).put_log_events(
                    logGroupName=stream.group, logStreamName=stream.name, logEvents=events
                )
            stream.offset += len(complete)
        except Exception as error:
            self._context.logger.warning("logs of %s not shipped, trying again: %s", stream.name, error)

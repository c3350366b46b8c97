"""S3 and CloudWatch Logs as a job's instance uses them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.account.principals import RoleCredentials
from local.paths import LocalPaths

SHIP_SECONDS = 1.0
# With the back-off between them, about a minute: as long as the account takes to come back after it was killed.
STORAGE_ATTEMPTS = 10
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
EVENTS_PER_CALL = 10_000
BYTES_PER_CALL = 1_048_576
EVENT_OVERHEAD_BYTES = 26


def client(paths: LocalPaths, service: str, role: RoleCredentials | None = None, *, attempts: int = 5) -> Any:
    """A client of the account, as a role or as its owner."""
    owner = {
        "aws_access_key_id": paths.access_key_id,
        "aws_secret_access_key": paths.secret_access_key,
    }
    return boto3.client(
        service,
        endpoint_url=paths.endpoint_url,
        region_name=paths.region,
        **(role.arguments() if role else owner),
        config=Config(retries={"mode": "standard", "max_attempts": attempts}, proxies={}),
    )


class Storage:
    """Moves folders between S3 prefixes and this machine."""

    def __init__(self, paths: LocalPaths, role: RoleCredentials | None = None) -> None:
        self._s3 = client(paths, "s3", role, attempts=STORAGE_ATTEMPTS)

    def download(self, uri: str, target: Path, *, may_be_empty: bool = False) -> None:
        """Every object below a prefix, or the one object that the URI names; raises ValueError when there is none."""
        bucket, prefix = split(uri)
        target.mkdir(parents=True, exist_ok=True)
        count = 0
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                name = item["Key"][len(prefix) :].lstrip("/") or item["Key"].rpartition("/")[2]
                if item["Key"].endswith("/"):
                    continue
                file = target / name
                file.parent.mkdir(parents=True, exist_ok=True)
                self._s3.download_file(bucket, item["Key"], str(file))
                count += 1
        if count == 0 and not may_be_empty:
            raise ValueError(f"No S3 objects found under S3 URL {uri} given in input data source")

    def download_file(self, uri: str, file: Path) -> None:
        """One object."""
        bucket, key = split(uri)
        self._s3.download_file(bucket, key, str(file))

    def upload(self, folder: Path, uri: str) -> None:
        """Every file below a folder, to the same place below a prefix."""
        bucket, prefix = split(uri.rstrip("/"))
        for file in sorted(
            path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".partial")
        ):
            self._s3.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder)}")

    def put(self, uri: str, body: bytes) -> None:
        """One object from memory."""
        bucket, key = split(uri)
        self._s3.put_object(Bucket=bucket, Key=key, Body=body)


class Logs:
    """Ships a growing file to a log stream. What can't be shipped now is shipped later: a job never fails for its log."""

    def __init__(
        self, paths: LocalPaths, role: RoleCredentials, *, group: str, stream: str, file: Path
    ) -> None:
        # The job is being watched between two attempts, so none may take long.
        self._logs = client(paths, "logs", role, attempts=1)
        self._group, self._stream, self._file = group, stream, file
        self._offset = 0
        self._shipped_at = 0.0

    def ship(self) -> None:
        """Send the lines that are complete, at most once a second."""
        if time.time() - self._shipped_at >= SHIP_SECONDS:
            self._send(last=False)

    def finish(self) -> None:
        """Send everything that is left, an unfinished last line included."""
        self._send(last=True)

    def _send(self, *, last: bool) -> None:
        self._shipped_at = time.time()
        if not self._file.exists():
            return
        with self._file.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        lines = data.splitlines(keepends=True)
        if lines and not last and not lines[-1].endswith(b"\n"):
            lines.pop()
        try:
            for batch in _log_batches(lines):
                self._put(batch)
                self._offset += sum(map(len, batch))
        except (BotoCoreError, ClientError) as error:
            print(f"the log is not shipped for now: {error}", flush=True)

    def _put(self, lines: list[bytes]) -> None:
        now_milliseconds = int(time.time() * 1000)
        events = [
            {"timestamp": now_milliseconds, "message": text}
            for line in lines
            if (text := line.decode("utf-8", "replace").rstrip("\r\n"))
        ]
        if not events:
            return
        stream = {"logGroupName": self._group, "logStreamName": self._stream}
        try:
            self._logs.put_log_events(**stream, logEvents=events)
        except self._logs.exceptions.ResourceNotFoundException:
            self._create()
            self._logs.put_log_events(**stream, logEvents=events)

    def _create(self) -> None:
        exists = self._logs.exceptions.ResourceAlreadyExistsException
        with contextlib.suppress(exists):
            self._logs.create_log_group(logGroupName=self._group)
        with contextlib.suppress(exists):
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)


def _log_batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Lines in the portions that one call takes."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        cost = len(line) + EVENT_OVERHEAD_BYTES
        if batch and (len(batch) == EVENTS_PER_CALL or size + cost > BYTES_PER_CALL):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += cost
    if batch:
        yield batch


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI; raises ValueError for anything else."""
    scheme, _, rest = uri.partition("://")
    if scheme != "s3" or not rest:
        raise ValueError(f"{uri} is not an S3 URI")
    bucket, _, key = rest.partition("/")
    return bucket, key

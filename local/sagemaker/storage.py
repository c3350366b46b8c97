"""S3 and CloudWatch Logs as a job's instance uses them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.paths import LocalPaths

SHIP_SECONDS = 1.0


def client(paths: LocalPaths, service: str) -> Any:
    """A client of the account."""
    return boto3.client(
        service,
        endpoint_url=paths.endpoint_url,
        region_name=paths.region,
        aws_access_key_id=paths.access_key_id,
        aws_secret_access_key=paths.secret_access_key,
        config=Config(retries={"mode": "standard", "max_attempts": 5}, proxies={}),
    )


class Storage:
    """Moves folders between S3 prefixes and this machine."""

    def __init__(self, paths: LocalPaths) -> None:
        self._s3 = client(paths, "s3")

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
    """Ships a growing file to a log stream."""

    def __init__(self, paths: LocalPaths, group: str, stream: str, file: Path) -> None:
        self._logs = client(paths, "logs")
        self._group, self._stream, self._file = group, stream, file
        self._offset = 0
        self._shipped_at = 0.0
        for create, arguments in (
            (self._logs.create_log_group, {"logGroupName": group}),
            (self._logs.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            try:
                create(**arguments)
            except self._logs.exceptions.ResourceAlreadyExistsException:
                continue

    def ship(self) -> None:
        """Send the lines that are complete, at most once a second."""
        now = time.time()
        if now - self._shipped_at < SHIP_SECONDS or not self._file.exists():
            return
        self._shipped_at = now
        with self._file.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        complete = data[: data.rfind(b"\n") + 1]
        events = [
            {"timestamp": int(now * 1000), "message": line}
            for line in complete.decode("utf-8", "replace").splitlines()
            if line
        ]
        if events:
            self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)
        self._offset += len(complete)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI; raises ValueError for anything else."""
    scheme, _, rest = uri.partition("://")
    if scheme != "s3" or not rest:
        raise ValueError(f"{uri} is not an S3 URI")
    bucket, _, key = rest.partition("/")
    return bucket, key

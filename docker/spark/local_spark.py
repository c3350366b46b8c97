"""Runs one PySpark program in this container, with Spark's local mode: all of the container's cores, no cluster.

Spark itself sees local files only: what the program reads is fetched from S3 before, and what it wrote goes there
after it, with Spark's event log beside it, also when the program failed. A folder that it wrote takes the place of an
earlier run's. (Spark's own way to S3 is 700 MB of jars.)
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3

# The container's memory also holds Python and what the JVM needs beside its heap.
HEAP_SHARE = 0.6
# Of each run there is a log, so they stay beside each other.
EVENTS = "events"
# Spark wants Java 17 or newer.
NO_JAVA = (
    "there is no `java` on the PATH: Spark needs a Java runtime, 17 or newer. The image has Debian's; where containers "
    "are processes, install one on the machine (Debian: apt-get install default-jre-headless)"
)


class LaunchError(Exception):
    """Why the program could not be run, or how it failed."""


def main() -> None:
    """Fetch, run, put back; ends with 1 and a line on standard error when the program failed."""
    options, rest = _options()
    try:
        run(options, rest, s3=boto3.client("s3"))
    except LaunchError as error:
        sys.exit(f"local_spark: {error}")


def run(options: argparse.Namespace, arguments: list[str], *, s3: Any) -> None:
    """Run the program with `--NAME FILE` for each input, `--output FOLDER`, and the further arguments."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise LaunchError(NO_JAVA)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        program = _fetch(s3, options.program, root / "program.py")
        given = [
            part
            for name, uri in (item.split("=", 1) for item in options.input)
            for part in (f"--{name}", str(_fetch(s3, uri, root / "input" / f"{name}.csv")))
        ]
        output, events = root / "output", root / "output" / EVENTS
        events.mkdir(parents=True)
        command = [*_submit(events, root), str(program), *given, "--output", str(output), *arguments]
        code = subprocess.run(
            command, check=False, env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
        ).returncode
        _put(s3, output, options.output)
    if code != 0:
        raise LaunchError(f"the program ended with {code}; its reason stands above")


def _submit(events: Path, root: Path) -> list[str]:
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": f"{_heap_mib()}m",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        # One plain file of JSON lines.
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.local.dir": str(root / "spark"),
        "spark.sql.warehouse.dir": (root / "warehouse").as_uri(),
        "spark.ui.enabled": "false",
        # A few thousand rows are not worth two hundred tasks for each shuffle.
        "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
    }
    configured = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    return ["spark-submit", "--master", "local[*]", *configured]


def _heap_mib() -> int:
    return int(int(os.environ["SPARK_MEMORY_MIB"]) * HEAP_SHARE)


def _fetch(s3: Any, uri: str, file: Path) -> Path:
    bucket, key = _place(uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(bucket, key, str(file))
    return file


def _put(s3: Any, folder: Path, uri: str) -> None:
    bucket, prefix = _place(uri)
    for written in sorted(folder.iterdir()):
        # Spark's files have other names each time: beside an earlier run's they would be two results.
        if written.is_dir() and written.name != EVENTS:
            _delete(s3, bucket, f"{prefix.rstrip('/')}/{written.name}/")
    for file in sorted(folder.rglob("*")):
        # Spark's checksum files are for its own file systems.
        if file.is_file() and not file.name.endswith(".crc"):
            s3.upload_file(str(file), bucket, f"{prefix.rstrip('/')}/{file.relative_to(folder)}")


def _delete(s3: Any, bucket: str, prefix: str) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
            deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            if errors := deleted.get("Errors"):
                raise LaunchError(f"what an earlier run left below {prefix} can't be deleted: {errors[0]}")


def _place(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise LaunchError(f"{uri} is not an S3 URI such as s3://bucket/key")
    return bucket, key


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--program", required=True, help="S3 URI of a Python file")
    parser.add_argument("--input", action="append", default=[], help="NAME=S3 URI of a file; may be repeated")
    parser.add_argument("--output", required=True, help="S3 URI of the folder for what the program writes")
    return parser.parse_known_args()


if __name__ == "__main__":
    main()

"""Ways into the local platform of this checkout, as its users have them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = LocalPaths(ROOT / ".updraft" / "local")
COMMAND_SECONDS = 900


def updraft(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this checkout as a user does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [ROOT / "updraft", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
        env=environment,
    )


def client(service: str) -> Any:
    """A boto3 client of the emulated account."""
    return boto3.client(
        service,
        endpoint_url=PATHS.endpoint_url,
        region_name=PATHS.region,
        aws_access_key_id=PATHS.access_key_id,
        aws_secret_access_key=PATHS.secret_access_key,
        config=Config(proxies={}),
    )


def download(uri: str, folder: Path) -> Path:
    """Fetch the object behind an S3 URI and return its file."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    file = folder / key.replace("/", "_")
    client("s3").download_file(bucket, key, str(file))
    return file

"""Ways into the local platform of this checkout, as its users have them."""

from __future__ import annotations

import http.cookiejar
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = LocalPaths(ROOT / ".updraft" / "local")
COMMAND_SECONDS = 900
REQUEST_SECONDS = 60


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


class Web:
    """Plain HTTP, with the cookies and headers that it was given."""

    def __init__(self, base_url: str, headers: dict[str, str] | None = None) -> None:
        self.base_url = base_url
        self._headers = headers or {}
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def send(self, method: str, path: str, document: Any = None, form: dict[str, str] | None = None) -> str:
        data, kind = None, "application/json"
        if form is not None:
            data, kind = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
        elif document is not None:
            data = json.dumps(document).encode()
        request = urllib.request.Request(
            self.base_url + path, data, {"Content-Type": kind, **self._headers}, method=method
        )
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            # It holds the connection open.
            with error:
                error.add_note(error.read().decode(errors="replace"))
            raise

    def json(self, method: str, path: str, document: Any = None) -> Any:
        return json.loads(self.send(method, path, document) or "null")

"""The DAG bundle: immutable releases in the shared directory, and a pointer in SSM to the live one.

A release is copied to local disk once and checked against its hashes; a run keeps the release that it began with.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger(__name__)

MANIFEST = ".release.json"
NO_RELEASE = "none"
POINTER_CACHE_SECONDS = 1.0


class ReleaseError(Exception):
    """A release that is missing or not what its manifest says."""


class ReleaseBundle(BaseDagBundle):
    """Serves the release that the pointer names, or a given version of it.

    :param pointer_parameter: SSM parameter that holds the live version, or `none` before the first push
    :param releases_directory: shared directory with one folder for each release
    """

    supports_versioning = True

    def __init__(self, *, pointer_parameter: str, releases_directory: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pointer_parameter = pointer_parameter
        self._releases = Path(releases_directory)
        self._live: str | None = self.version
        self._asked_at = 0.0
        self._ssm: Any = None

    def initialize(self) -> None:
        """Have the wanted release on local disk."""
        self.refresh()
        super().initialize()

    def refresh(self) -> None:
        """Look where the pointer points, and fetch that release when it is not here yet.

        A pointer that can't be read, or a release that can't be fetched, leaves the one that is served alone.
        """
        if self.version is not None:
            self._fetch(self.version)
            return
        wanted = self._read_pointer()
        if wanted is None or wanted == self._live:
            return
        try:
            self._fetch(wanted)
        except (OSError, ReleaseError) as error:
            if self._live is None:
                raise
            log.error("release %s can't be served, %s stays live: %s", wanted, self._live, error)
            return
        self._live = wanted

    def get_current_version(self) -> BundleVersion | None:
        """The version that `path` holds; asking never changes it: the dag-processor compares before and after a refresh."""
        return BundleVersion(version=self._live) if self._live else None

    @property
    def path(self) -> Path:
        """The local folder of the release; an empty one before the first push."""
        if self._live:
            return self.versions_dir / self._live
        empty = self.base_dir / "empty"
        empty.mkdir(parents=True, exist_ok=True)
        return empty

    def _read_pointer(self) -> str | None:
        """The live version; None before the first push, or when SSM doesn't answer and nothing was read before."""
        if time.monotonic() - self._asked_at < POINTER_CACHE_SECONDS:
            return self._live
        if self._ssm is None:
            self._ssm = boto3.client(
                "ssm", config=Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard"})
            )
        try:
            answer = self._ssm.get_parameter(Name=self._pointer_parameter)
        except (BotoCoreError, ClientError) as error:
            log.error(
                "the pointer %s can't be read, %s stays live: %s", self._pointer_parameter, self._live, error
            )
            return self._live
        self._asked_at = time.monotonic()
        value = str(answer["Parameter"]["Value"])
        return None if value == NO_RELEASE else value

    def _fetch(self, version: str) -> None:
        target = self.versions_dir / version
        if (target / MANIFEST).is_file():
            return
        with self.lock():
            if (target / MANIFEST).is_file():
                return
            self.versions_dir.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self.versions_dir, prefix=".partial-"))
            try:
                shutil.copytree(self._releases / version, partial, dirs_exist_ok=True)
                check_release(partial, version)
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def check_release(folder: Path, version: str) -> None:
    """Raise ReleaseError unless the folder holds exactly the files of its manifest, with their hashes."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["version"] != version:
        raise ReleaseError(f"the manifest in {folder} names version {manifest['version']}, not {version}")
    for name, digest in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise ReleaseError(f"release {version} lacks {name}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ReleaseError(f"release {version}: {name} is not what was pushed")

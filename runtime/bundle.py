"""The DAG bundle: immutable releases in the shared directory, and a pointer in SSM to the live one.

A release is copied to local disk once and checked against its hashes; a run keeps the release that it began with.
When SSM or the shared directory answers late, stale or not at all, what is served stays, and a run that needs its
release waits for it.
"""

from __future__ import annotations

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

from runtime.parameters import is_absence
from runtime.release_check import MANIFEST, VERSION, ReleaseError, check_release, read_manifest

log = logging.getLogger(__name__)

NO_RELEASE = "none"
# NFS caches attributes for up to 60 s: a release that another machine has just put there may be seen as late.
RELEASE_SECONDS = 150.0
RETRY_SECONDS = 0.5
# The dag-processor asks whenever its loop turns, which is several times a second while it parses.
POINTER_SECONDS = 0.5
# Its loop must not stand still over one question; the next is a second away.
SSM_CONFIG = Config(connect_timeout=2, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1})


class PointerError(Exception):
    """The pointer can't be read, and was never read before."""


class ReleaseBundle(BaseDagBundle):
    """Serves the release that the pointer names, or a given version of it.

    :param pointer_parameter: SSM parameter that holds the live version, or `none`; the first push makes it
    :param releases_directory: shared directory with one folder for each release
    """

    supports_versioning = True

    def __init__(self, *, pointer_parameter: str, releases_directory: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pointer_parameter = pointer_parameter
        self._releases = Path(releases_directory)
        self._live: str | None = self.version
        self._pointer: tuple[int, str] | None = None
        self._asked_at = float("-inf")
        self._ssm: Any = None

    def initialize(self) -> None:
        """Have the wanted release on local disk.

        A given version is waited for. Without one, raises when nothing can be known of the live version: an empty
        folder would be taken for a release without DAGs.
        """
        if self.version is not None:
            self._wait_for(self.version)
        else:
            wanted = self._read_pointer()
            if wanted is not None:
                self._fetch(wanted)
            self._live = wanted
        super().initialize()

    def refresh(self) -> None:
        """Look where the pointer points, and fetch that release when it is not here yet.

        A pointer that can't be read, or a release that can't be fetched yet, leaves the one that is served alone.
        """
        if self.version is not None:
            self._wait_for(self.version)
            return
        try:
            wanted = self._read_pointer()
            if wanted is not None:
                self._fetch(wanted)
        except (PointerError, ReleaseError, OSError) as error:
            log.warning("release %s stays live for now: %s", self._live, error)
            return
        self._live = wanted

    def get_current_version(self) -> BundleVersion | None:
        """The version that `path` holds; asking never changes it: the dag-processor compares before and after a refresh."""
        return BundleVersion(version=self._live) if self._live else None

    @property
    def path(self) -> Path:
        """The local folder of the release, named by its version; an empty one before the first push."""
        if self._live:
            return self.versions_dir / self._live
        empty = self.base_dir / "empty"
        empty.mkdir(parents=True, exist_ok=True)
        return empty

    def _read_pointer(self) -> str | None:
        """The live version, None before the first push; what was read last when SSM doesn't answer."""
        if self._pointer is None or time.monotonic() - self._asked_at >= POINTER_SECONDS:
            self._pointer = self._ask()
            self._asked_at = time.monotonic()
        version = self._pointer[1]
        if version == NO_RELEASE:
            return None
        if not VERSION.fullmatch(version):
            raise PointerError(
                f"the pointer {self._pointer_parameter} holds {version!r}, which is no version"
            )
        return version

    def _ask(self) -> tuple[int, str]:
        """The parameter's own version number and its value."""
        try:
            if self._ssm is None:
                self._ssm = boto3.client("ssm", config=SSM_CONFIG)
            answer = self._ssm.get_parameter(Name=self._pointer_parameter)["Parameter"]
        except (BotoCoreError, ClientError) as error:
            if self._pointer is None:
                if is_absence(error):
                    return 0, NO_RELEASE
                raise PointerError(f"the pointer {self._pointer_parameter} can't be read: {error}") from error
            log.warning("the pointer %s can't be read: %s", self._pointer_parameter, error)
            return self._pointer
        # Reads are eventually consistent: an older answer than the last one says nothing new.
        newest = (int(answer["Version"]), str(answer["Value"]))
        return newest if self._pointer is None or newest[0] >= self._pointer[0] else self._pointer

    def _wait_for(self, version: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while True:
            try:
                self._fetch(version)
                return
            except (ReleaseError, OSError) as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("waiting for release %s: %s", version, error)
            time.sleep(RETRY_SECONDS)

    def _fetch(self, version: str) -> None:
        """Have a whole copy of the release on local disk; raises ReleaseError or OSError when it can't be had now."""
        target = self.versions_dir / version
        if (target / MANIFEST).is_file():
            return
        with self.lock():
            if (target / MANIFEST).is_file():
                return
            self.versions_dir.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=self.versions_dir, prefix=".partial-"))
            try:
                shutil.copytree(self._releases / version, partial, symlinks=True, dirs_exist_ok=True)
                manifest = read_manifest(partial)
                if manifest.version != version:
                    raise ReleaseError(f"{self._releases / version} holds version {manifest.version}")
                check_release(partial, manifest)
                # What else is there is no whole copy: those have their manifest.
                shutil.rmtree(target, ignore_errors=True)
                partial.chmod(0o755)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

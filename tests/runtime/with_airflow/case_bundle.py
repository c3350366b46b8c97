"""The bundle when everything answers, and when SSM or the shared directory doesn't."""

import os
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

HOME = tempfile.TemporaryDirectory()
os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = HOME.name

from botocore.exceptions import ClientError, ReadTimeoutError  # noqa: E402

from runtime import bundle as module  # noqa: E402
from runtime.bundle import PointerError, ReleaseBundle  # noqa: E402
from runtime.release_check import ReleaseError  # noqa: E402
from tests.runtime.with_airflow.releases import Ssm, stage  # noqa: E402

THROTTLED = ClientError(
    {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetParameter"
)
SILENT = ReadTimeoutError(endpoint_url="https://ssm")


class BundleTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.releases = Path(folder.name)
        self.ssm = Ssm()
        for name, value in (("POINTER_SECONDS", 0.0), ("RETRY_SECONDS", 0.01), ("RELEASE_SECONDS", 5.0)):
            patch = mock.patch.object(module, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def stage(self, text: str) -> str:
        return stage(self.releases, {"a.py": "", "helper/b.py": text})

    def bundle(self, version: str | None = None) -> ReleaseBundle:
        found = ReleaseBundle(
            name=f"updraft-{self.id()}",
            pointer_parameter="/p",
            releases_directory=str(self.releases),
            version=version,
        )
        found._ssm = self.ssm
        return found

    def served(self, bundle: ReleaseBundle) -> str:
        version = bundle.get_current_version()
        assert version is not None
        assert bundle.path.name == version.version
        return (bundle.path / "helper" / "b.py").read_text()

    def test_before_the_first_push_it_is_empty(self) -> None:
        bundle = self.bundle()
        bundle.initialize()
        assert bundle.get_current_version() is None
        assert list(bundle.path.iterdir()) == []

    def test_before_the_first_push_there_is_no_pointer(self) -> None:
        self.ssm.failure = ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        bundle = self.bundle()
        bundle.initialize()
        assert bundle.get_current_version() is None
        self.ssm.failure = None
        self.ssm.history.append(self.stage("1"))
        bundle.refresh()
        assert self.served(bundle) == "1"
        # Once there was one, its absence is a trouble like any other.
        self.ssm.failure = ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        bundle.refresh()
        assert self.served(bundle) == "1"

    def test_refresh_follows_the_pointer_there_and_back(self) -> None:
        first, second = self.stage("1"), self.stage("2")
        self.ssm.history.append(first)
        bundle = self.bundle()
        bundle.initialize()
        assert self.served(bundle) == "1"
        for version, text in ((second, "2"), (first, "1")):
            self.ssm.history.append(version)
            bundle.refresh()
            assert self.served(bundle) == text

    def test_unreadable_pointer_leaves_what_is_served(self) -> None:
        self.ssm.history.append(self.stage("1"))
        bundle = self.bundle()
        bundle.initialize()
        self.ssm.history.append(self.stage("2"))
        for failure in (THROTTLED, SILENT):
            self.ssm.failure = failure
            bundle.refresh()
            assert self.served(bundle) == "1"
        self.ssm.failure = None
        bundle.refresh()
        assert self.served(bundle) == "2"

    def test_stale_pointer_never_leads_back(self) -> None:
        self.ssm.history += [self.stage("1"), self.stage("2")]
        bundle = self.bundle()
        bundle.initialize()
        self.ssm.stale = True
        bundle.refresh()
        assert self.served(bundle) == "2"

    def test_nothing_known_is_an_error_and_not_an_empty_release(self) -> None:
        self.ssm.failure = THROTTLED
        bundle = self.bundle()
        with self.assertRaises(PointerError):
            bundle.initialize()
        assert not bundle.is_initialized

    def test_pointer_to_garbage_leaves_what_is_served(self) -> None:
        self.ssm.history.append(self.stage("1"))
        bundle = self.bundle()
        bundle.initialize()
        self.ssm.history.append("../../etc")
        bundle.refresh()
        assert self.served(bundle) == "1"

    def test_release_that_is_late_or_damaged_leaves_what_is_served(self) -> None:
        self.ssm.history.append(self.stage("1"))
        bundle = self.bundle()
        bundle.initialize()
        second = self.stage("2")
        (self.releases / second / "a.py").rename(self.releases / "late")
        self.ssm.history.append(second)
        bundle.refresh()
        assert self.served(bundle) == "1"
        (self.releases / "late").rename(self.releases / second / "a.py")
        (self.releases / second / "helper" / "b.py").write_text("3")
        bundle.refresh()
        assert self.served(bundle) == "1"
        (self.releases / second / "helper" / "b.py").write_text("2")
        bundle.refresh()
        assert self.served(bundle) == "2"
        assert [path.name for path in bundle.versions_dir.glob(".*")] == []

    def test_run_waits_for_its_release(self) -> None:
        version = self.stage("1")
        hidden = self.releases / ".hidden"
        (self.releases / version).rename(hidden)
        bundle = self.bundle(version)
        appears = threading.Timer(0.3, hidden.rename, [self.releases / version])
        appears.start()
        bundle.initialize()
        appears.join()
        assert self.served(bundle) == "1"

    def test_run_whose_release_never_comes_is_told(self) -> None:
        with mock.patch.object(module, "RELEASE_SECONDS", 0.1), self.assertRaises(OSError):
            self.bundle("0" * 16).initialize()

    def test_run_asks_no_pointer(self) -> None:
        self.ssm.failure = THROTTLED
        bundle = self.bundle(self.stage("1"))
        bundle.initialize()
        assert self.served(bundle) == "1"

    def test_release_of_another_version_under_a_name_is_refused(self) -> None:
        version = self.stage("1")
        (self.releases / version).rename(self.releases / ("0" * 16))
        with mock.patch.object(module, "RELEASE_SECONDS", 0.0), self.assertRaises(ReleaseError):
            self.bundle("0" * 16).initialize()

    def test_many_at_once_make_one_copy(self) -> None:
        version = self.stage("1")
        bundles = [self.bundle(version) for _ in range(8)]
        threads = [threading.Thread(target=bundle.initialize) for bundle in bundles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {self.served(bundle) for bundle in bundles} == {"1"}
        assert [path.name for path in bundles[0].versions_dir.iterdir()] == [version]

    def test_local_copy_that_vanished_is_made_again(self) -> None:
        self.ssm.history.append(self.stage("1"))
        bundle = self.bundle()
        bundle.initialize()
        (bundle.path / ".release.json").unlink()
        bundle.refresh()
        assert self.served(bundle) == "1"


if __name__ == "__main__":
    unittest.main()

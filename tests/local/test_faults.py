"""Faults of the emulated account, and the delayed view of a file system."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.efs import DelayedViews, efs_mount, efs_root
from local.faults import Faults, FaultSwitch, parse
from local.paths import LocalPaths

FILE_SYSTEM = "fs-0123456789abcdef0"


def in_time(done: Callable[[], bool]) -> bool:
    """Whether it is done within 20 s."""
    deadline = time.monotonic() + 20
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def paths(tmp_path: Path) -> LocalPaths:
    return LocalPaths(tmp_path)


@pytest.fixture
def views(paths: LocalPaths) -> Iterator[DelayedViews]:
    views = DelayedViews(paths)
    yield views
    views.set_delay(0)


def test_mount_is_the_file_system_itself(paths: LocalPaths) -> None:
    mount = efs_mount(paths, FILE_SYSTEM)
    (efs_root(paths, FILE_SYSTEM) / "new").mkdir()
    assert [entry.name for entry in mount.iterdir()] == ["new"]


def test_delayed_view_shows_the_old_at_once_and_the_new_late(paths: LocalPaths, views: DelayedViews) -> None:
    mount, root = efs_mount(paths, FILE_SYSTEM), efs_root(paths, FILE_SYSTEM)
    (root / "old").mkdir()
    views.set_delay(600)
    (root / "new").mkdir()
    (root / "old" / "file").write_text("x")
    views._look(600)
    assert [entry.name for entry in mount.iterdir()] == ["old"]
    assert (mount / "old" / "file").read_text() == "x"
    views.set_delay(0)
    assert sorted(entry.name for entry in mount.iterdir()) == ["new", "old"]


def test_new_entry_appears_after_the_delay_and_a_removed_one_goes(
    paths: LocalPaths, views: DelayedViews
) -> None:
    mount, root = efs_mount(paths, FILE_SYSTEM), efs_root(paths, FILE_SYSTEM)
    views.set_delay(0.3)
    (root / "new").mkdir()
    assert in_time((mount / "new").exists)
    (root / "new").rmdir()
    assert in_time(lambda: not list(mount.iterdir()))


def test_faults_are_read_whole(paths: LocalPaths) -> None:
    switch = FaultSwitch(paths)
    assert switch.put(b'{"ssm_throttled_share": 1, "agent_dies_in": "Install"}') == Faults(1, 0.0, "Install")
    assert switch.throttles("AmazonSSM.GetParameter")
    assert not switch.throttles("CodeDeploy_20141006.GetDeployment")
    assert switch.put(b"{}") == Faults()
    assert not switch.throttles("AmazonSSM.GetParameter")


def test_faults_of_sagemaker_leave_other_services_alone(paths: LocalPaths) -> None:
    switch = FaultSwitch(paths)
    switch.put(b'{"sagemaker_throttled_share": 1, "sagemaker_creations_unanswered_share": 1}')
    assert switch.throttles("SageMaker.DescribeTrainingJob")
    assert not switch.throttles("AmazonSSM.GetParameter")
    assert switch.leaves_unanswered("SageMaker.CreateTrainingJob")
    assert not switch.leaves_unanswered("SageMaker.StopTrainingJob")
    switch.put(b"{}")
    assert not switch.leaves_unanswered("SageMaker.CreateTrainingJob")


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"sleep.*ssm_throttled_share: 0 to 1.*agent_dies_in"):
        parse(b'{"sleep": 1, "ssm_throttled_share": 2, "agent_dies_in": "Nowhere"}')


def test_types_without_capacity_are_a_list() -> None:
    assert parse(b'{"without_capacity": ["ml.g5.xlarge"]}').without_capacity == ("ml.g5.xlarge",)
    with pytest.raises(ValueError, match="without_capacity: a list of instance types"):
        parse(b'{"without_capacity": "ml.g5.xlarge"}')


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"efs_delay_seconds": true}', b'{"efs_delay_seconds": "1"}'])
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(body)

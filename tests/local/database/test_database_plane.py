"""An account doesn't start without its database, and says which port stands in the way."""

import logging
from pathlib import Path

import pytest

from local.database.plane import DatabasePlane, InstanceSpec
from local.database.standalone import INSTANCE_CLASS
from local.paths import LocalPaths
from tests.local.database.endpoint import MASTER
from tests.local.taken_port import taken_port


def test_taken_port_is_told_at_the_start(tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path)
    spec = InstanceSpec("one", INSTANCE_CLASS, MASTER, check_token=lambda _user, _token: False)
    plane = DatabasePlane(paths=paths, logger=logging.getLogger("database"), instances=lambda: [spec])
    folder = paths.database / spec.identifier
    # As after an earlier start: making the files takes longer than all of this test.
    (folder / "data").mkdir(parents=True)
    for name in ("administrator", "data/PG_VERSION"):
        (folder / name).touch()
    with (
        taken_port(folder) as port,
        pytest.raises(RuntimeError, match=f"database one: port {port} on 127.0.0.1 is in use .* end it"),
    ):
        plane.start()

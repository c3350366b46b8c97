"""An account doesn't start without its broker, and says which port stands in the way."""

import logging
from pathlib import Path

import pytest

from local.broker.plane import BrokerPlane, NodeGroup
from local.paths import LocalPaths
from tests.local.taken_port import taken_port


def test_taken_port_is_told_at_the_start(tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path)
    group = NodeGroup(identifier="one", tokens=())
    plane = BrokerPlane(paths=paths, logger=logging.getLogger("broker"), node_groups=lambda: [group])
    folder = paths.broker / group.identifier
    folder.mkdir(parents=True)
    with (
        taken_port(folder) as port,
        pytest.raises(RuntimeError, match=f"broker one: port {port} on 127.0.0.1 is in use .* end it"),
    ):
        plane.start()

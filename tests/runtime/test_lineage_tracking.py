"""What the exporter makes of a request that can't be sent, and of one that only can't be sent now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.lineage.exporter import Exporter
from runtime.lineage.spool import Spool
from runtime.lineage.tracking import Tracking, TrackingRefusedError, TrackingUnavailableError


@pytest.fixture
def tracking() -> Tracking:
    """A server that nobody runs."""
    return Tracking("http://127.0.0.1:9", username="admin", password="x")


def record_with(tracking: Tracking) -> Callable[[dict[str, Any]], None]:
    return lambda event: tracking.log("1" * 32, timestamp_ms=1, metrics=event["metrics"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_json_does_not_have_is_refused_and_not_tried_again(
    tracking: Tracking, value: float, tmp_path: Path
) -> None:
    with pytest.raises(TrackingRefusedError, match=r"INVALID_JSON: POST .*log-batch"):
        record_with(tracking)({"metrics": {"loss": value}})
    spool = Spool(tmp_path)
    spool.put({"metrics": {"loss": value}})
    exporter = Exporter(spool, record_with(tracking))
    assert exporter.export()
    assert (exporter.dropped, spool.waiting()) == (1, [])


def test_server_that_is_away_gets_it_later(tracking: Tracking, tmp_path: Path) -> None:
    with pytest.raises(TrackingUnavailableError):
        record_with(tracking)({"metrics": {"loss": 0.5}})
    spool = Spool(tmp_path)
    spool.put({"metrics": {"loss": 0.5}})
    exporter = Exporter(spool, record_with(tracking))
    assert not exporter.export()
    assert (exporter.dropped, len(spool.waiting())) == (0, 1)

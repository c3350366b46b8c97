"""What a worker knows of its fleet: the record that the load metric writes for its queue."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runtime.departure import Order
from runtime.parameters import is_absence

log = logging.getLogger(__name__)

# An unchanged record is written again every half minute: an older one means that nobody looks after the fleet.
FRESH_SECONDS = 120.0


class Fleet:
    """One worker's view of `{ssm}/workers/{queue}`, as of the last look."""

    def __init__(self, *, parameter: str, address: str) -> None:
        self._parameter = parameter
        self._address = address
        self._ssm: Any = None
        self._record: dict[str, Any] = {}

    def look(self) -> None:
        """Read the record once. When SSM is silent the last one counts until it is too old to act on."""
        try:
            if self._ssm is None:
                self._ssm = boto3.client("ssm", config=Config(connect_timeout=5, read_timeout=10))
            record = json.loads(self._ssm.get_parameter(Name=self._parameter)["Parameter"]["Value"])
        except (BotoCoreError, ClientError, ValueError) as error:
            log.warning("%s can't be read: %s", self._parameter, error)
            if is_absence(error):
                # It is there as long as the queue is: nobody looks after this worker any more.
                self._record = {"written_at": time.time(), "take_work": False}
            return
        self._record = record if isinstance(record, dict) else {}

    def order(self, now: float) -> Order:
        """What the fleet wants at `now` (seconds since the epoch); a worker stays when nothing fresh says otherwise."""
        record = self._record
        # The two clocks may differ a little: a record from the future is as good as its distance from now.
        if abs(now - record.get("written_at", 0)) > FRESH_SECONDS:
            return Order.STAY
        if not record.get("take_work", True) or self._address in record.get("closing", ()):
            return Order.CLOSE
        return Order.STAY if self._address in record.get("keep", ()) else Order.SPARE

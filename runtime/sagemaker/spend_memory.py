"""What the budget gate remembers: the lines of this month's jobs that can't change any more, in the data bucket.

Without it every submission would describe every job of the month, one by one, against an API that throttles the whole
account. It is no source of truth: what is lost, unreadable or written over by another task is described again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runtime.sagemaker.spend import Entry

log = logging.getLogger(__name__)


class SpendMemory:
    """The object of the month of `now`. `client` is boto3's of S3."""

    def __init__(self, client: Any, bucket: str, now: datetime) -> None:
        self._client = client
        self._place = {"Bucket": bucket, "Key": f"spend/{now:%Y-%m}.json"}

    def read(self) -> dict[str, Entry]:
        """The lines by ARN; none where there is no object, or none that can be read."""
        try:
            lines = json.loads(self._client.get_object(**self._place)["Body"].read())
            return {
                line["arn"]: Entry(**line | {"created_at": datetime.fromisoformat(line["created_at"])})
                for line in lines
            }
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                log.warning("%s can't be read: %s", self._place["Key"], error)
        except (BotoCoreError, ValueError, TypeError, KeyError) as error:
            log.warning("%s can't be read: %r", self._place["Key"], error)
        return {}

    def write(self, lines: dict[str, Entry]) -> None:
        """Keep the lines; when that fails they are described again."""
        content = [asdict(each) | {"created_at": each.created_at.isoformat()} for each in lines.values()]
        try:
            self._client.put_object(**self._place, Body=json.dumps(content).encode())
        except (BotoCoreError, ClientError) as error:
            log.warning("%s can't be written: %s", self._place["Key"], error)

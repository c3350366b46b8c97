"""Tries a running application with a real picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
import requests

TIMEOUT_SECONDS = 30


class SmokeError(RuntimeError):
    """An application that doesn't do what it is for."""


def example_picture(bucket: str, prefix: str, name: str) -> bytes:
    """A held-out picture as it came from its source."""
    answer = boto3.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/raw/images/{name}.jpg")
    content: bytes = answer["Body"].read()
    return content


def try_out(url: str, picture: bytes, *, label: str) -> Mapping[str, Any]:
    """The answer for the picture; raises SmokeError unless it has the label."""
    try:
        with requests.Session() as session:
            # It is inside the VPC, where no proxy of the environment leads.
            session.trust_env = False
            answer = session.post(
                f"{url}/predict",
                files={"picture": ("pet.jpg", picture, "image/jpeg")},
                timeout=TIMEOUT_SECONDS,
            )
    except requests.RequestException as error:
        raise SmokeError(f"{url} doesn't answer: {error}") from error
    if answer.status_code != 200:
        raise SmokeError(f"{url}/predict answered {answer.status_code}: {answer.text[:300]}")
    told: Mapping[str, Any] = answer.json()
    if told.get("label") != label:
        raise SmokeError(f"{url}/predict takes a {label} for a {told.get('label')}")
    return told

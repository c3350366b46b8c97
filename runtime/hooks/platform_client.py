"""What the deployment hooks ask of the platform: the pointer in SSM, and the verifier beside the dag-processor."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from typing import Any

import boto3
from botocore.config import Config
from release_files import HookError, environment  # type: ignore[import-not-found]

# A verifier that is just being replaced by a deployment is back within this time.
VERIFIER_SECONDS = 90
RETRY_SECONDS = 1
ANSWER_SECONDS = 180


def client(service: str) -> Any:
    """Return a client that outlasts a throttled or slow API for a while."""
    # boto3 itself reads AWS_DEFAULT_REGION alone.
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 10})
    return boto3.client(service, region_name=environment("AWS_REGION"), config=config)


def tell_sign_of_life() -> None:
    """Write which deployment is being worked on, and when, to the SSM parameter that the command line watches."""
    value = f"{environment('DEPLOYMENT_ID')} {environment('LIFECYCLE_EVENT')} {time.time():.0f}"
    name = environment("UPDRAFT_SSM_PREFIX") + "/bundle/progress"
    client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)


class Pointer:
    """The SSM parameter that holds the live version; the first push makes it."""

    def __init__(self) -> None:
        self._ssm = client("ssm")
        self.name = environment("UPDRAFT_SSM_PREFIX") + "/bundle/pointer"

    def read(self) -> str:
        try:
            return str(self._ssm.get_parameter(Name=self.name)["Parameter"]["Value"])
        except self._ssm.exceptions.ParameterNotFound:
            return "none"

    def write(self, version: str) -> None:
        self._ssm.put_parameter(Name=self.name, Value=version, Type="String", Overwrite=True)


class Verifier:
    """The verifier's API. Requests are signed with the secret that both sides hold; it never travels."""

    def __init__(self) -> None:
        self._url = environment("UPDRAFT_VERIFIER_URL")
        parameter = environment("UPDRAFT_SSM_PREFIX") + "/verifier/secret-arn"
        arn = client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        self._secret = client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]

    def ask(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises HookError with the verifier's own words, or when none answers in time."""
        body = json.dumps(content).encode()
        deadline = time.monotonic() + VERIFIER_SECONDS
        while True:
            try:
                return self._send(path, body)
            except urllib.error.HTTPError as error:
                raise HookError(_reason(error)) from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HookError(
                        f"no answer from the verifier at {self._url} in {VERIFIER_SECONDS} s ({error}); "
                        "does the service dag-processor run?"
                    ) from error
                time.sleep(RETRY_SECONDS)

    def _send(self, path: str, body: bytes) -> dict[str, Any]:
        text = path.encode() + b"\n" + body
        signature = hmac.new(self._secret.encode(), text, hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            self._url + path, data=body, headers={"X-Updraft-Signature": signature}, method="POST"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            content: dict[str, Any] = json.load(answer)
        return content


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read().decode("utf-8", "replace")
    try:
        return "\n".join(json.loads(text)["errors"])
    except (ValueError, KeyError, TypeError):
        return f"the verifier answered {error.code}: {text[:500]}"

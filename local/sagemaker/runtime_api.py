"""The API that endpoints are asked through (service `sagemaker-runtime`): InvokeEndpoint."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from local.paths import LocalPaths
from local.sagemaker.endpoint_host import instance_directory, report
from local.sagemaker.endpoints import ENDPOINT, STATUS
from local.sagemaker.serving import opener
from local.sagemaker.store import Record, Store

PATH = re.compile(r"/endpoints/([^/]+)/invocations")
LONGEST_BODY_BYTES = 6_291_456
INVOCATION_SECONDS = 60
MORE_INFORMATION = "See the endpoint's log group in CloudWatch for more information."
PREFIX = "x-amzn-sagemaker-"
# What the container is told of the request's headers, and what the caller is told of the answer's.
PASSED_ON = ("content-type", "accept", f"{PREFIX}custom-attributes", f"{PREFIX}inference-id")
PASSED_BACK = ("content-type", f"{PREFIX}custom-attributes")
UNAVAILABLE = tuple(
    f"{PREFIX}{name}"
    for name in (
        "target-model",
        "target-container-hostname",
        "inference-component",
        "session-id",
        "prefix-aware-id",
        "enable-explanations",
    )
)
Response = tuple[int, dict[str, str], bytes]


class InvocationError(Exception):
    """An error of this API: its code, its HTTP status, and what AWS adds to it."""

    def __init__(self, code: str, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.more = more


class Runtime:
    """Answers InvokeEndpoint from the container of a variant."""

    def __init__(self, store: Store, paths: LocalPaths) -> None:
        self._store = store
        self._paths = paths

    async def handle(self, endpoint: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer one request; the container is asked on a thread of its own."""
        lower = {name.lower(): value for name, value in headers.items()}
        try:
            return await asyncio.to_thread(self.invoke, endpoint, lower, body)
        except InvocationError as error:
            return _error(error)

    def invoke(self, name: str, headers: Mapping[str, str], body: bytes) -> Response:
        """The container's answer; raises InvocationError as AWS would answer. `headers` are in lower case."""
        refused = [header for header in UNAVAILABLE if header in headers]
        if refused:
            message = f"{', '.join(refused)} is not available in the local account; leave it out"
            raise InvocationError("ValidationError", 400, message)
        if len(body) > LONGEST_BODY_BYTES:
            message = f"Body has {len(body)} bytes; at most {LONGEST_BODY_BYTES} are allowed"
            raise InvocationError("ValidationError", 400, message)
        variant, port, log_stream = self._choose(name, headers.get(f"{PREFIX}target-variant"))
        passed = {header: headers[header] for header in PASSED_ON if header in headers}
        passed.setdefault("content-type", "application/octet-stream")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data=body, headers=passed)
        try:
            with opener().open(request, timeout=INVOCATION_SECONDS) as answer:
                content = bytes(answer.read())
                told = {header: answer.headers[header] for header in PASSED_BACK if answer.headers[header]}
        except urllib.error.HTTPError as error:
            raise _model_error(error.code, error.read().decode(errors="replace"), log_stream) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
                text = f"Your invocation timed out after {INVOCATION_SECONDS} s while waiting for a response"
                raise _model_error(0, text, log_stream) from error
            raise InvocationError("ServiceUnavailable", 503, f"{name}: {error}") from error
        return 200, {**told, "x-Amzn-Invoked-Production-Variant": variant}, content

    def _choose(self, name: str, target: str | None) -> tuple[str, int, str]:
        """A variant that serves, its port, and the ARN of its log group."""
        with self._store.lock:
            endpoint = self._store.of(ENDPOINT).get(name)
            if endpoint is None or endpoint["_serving"] is None or endpoint[STATUS] == "Deleting":
                message = f"Endpoint {name} of account {self._paths.account_id} not found."
                raise InvocationError("ValidationError", 400, message)
            variant = _variant(endpoint, target)
            directory = instance_directory(self._paths, name, endpoint["_serving"], variant)
        port = report(directory).get("port")
        if port is None:
            raise InvocationError(
                "ServiceUnavailable", 503, f"{name}: no instance of variant {variant} answers now; try again"
            )
        group = f"arn:aws:logs:{self._paths.region}:{self._paths.account_id}:log-group:/aws/sagemaker/Endpoints/{name}"
        return variant, port, group


def _variant(endpoint: Record, target: str | None) -> str:
    weights: dict[str, float] = {
        each["VariantName"]: each["CurrentWeight"] for each in endpoint["ProductionVariants"]
    }
    if target is not None:
        if target not in weights:
            raise InvocationError(
                "ValidationError", 400, f"Variant {target} not found; the endpoint has {', '.join(weights)}"
            )
        return target
    if not any(weights.values()):
        raise InvocationError("ValidationError", 400, "every variant has the weight 0: none takes a request")
    return random.choices(list(weights), list(weights.values()))[0]


def _model_error(status: int, text: str, log_stream: str) -> InvocationError:
    kind = "client" if 400 <= status < 500 else "server"
    message = (
        f'Received {kind} error ({status}) from primary with message "{text[:1024]}". {MORE_INFORMATION}'
    )
    return InvocationError(
        "ModelError", 424, message, OriginalStatusCode=status, OriginalMessage=text, LogStreamArn=log_stream
    )


def _error(error: InvocationError) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": error.code}
    return error.status, headers, json.dumps({"Message": str(error), **error.more}).encode()

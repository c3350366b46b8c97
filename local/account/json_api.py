"""What services of our own that speak AWS's JSON 1.1 protocol have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
CONTENT_TYPE = "application/x-amz-json-1.1"


class ApiError(Exception):
    """An error of an API: its code as AWS has it, and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(
    call: Callable[[str, Document], Document], headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Run the operation that the request's target names; an ApiError becomes a 400 in AWS's form."""
    target = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), "")
    content = {"Content-Type": CONTENT_TYPE}  # the server adds to it
    try:
        return 200, content, json.dumps(call(target.rpartition(".")[2], json.loads(body or b"{}"))).encode()
    except ApiError as error:
        return 400, content, json.dumps({"__type": error.code, "message": str(error)}).encode()

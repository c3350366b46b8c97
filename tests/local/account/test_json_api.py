"""The JSON 1.1 protocol: the target names the operation, errors have AWS's form, answers share nothing."""

import json

from local.account.json_api import ApiError, Document, answer

HEADERS = {"X-Amz-Target": "AmazonService_V1.DoThing"}


def test_operation_is_named_by_the_target() -> None:
    status, _, body = answer(
        lambda operation, request: {"did": operation, "with": request}, HEADERS, b'{"a": 1}'
    )
    assert (status, json.loads(body)) == (200, {"did": "DoThing", "with": {"a": 1}})


def test_error_is_a_400_with_its_code() -> None:
    def refuse(_operation: str, _request: Document) -> Document:
        raise ApiError("ValidationException", "no")

    status, _, body = answer(refuse, HEADERS, b"")
    assert (status, json.loads(body)) == (400, {"__type": "ValidationException", "message": "no"})


def test_headers_that_the_server_adds_stay_with_their_answer() -> None:
    _, first, _ = answer(lambda *_: {}, HEADERS, b"{}")
    first["Content-Length"] = "2"
    _, second, _ = answer(lambda *_: {}, HEADERS, b"{}")
    assert second == {"Content-Type": "application/x-amz-json-1.1"}

"""One page of a list: filters, order and token as every List operation of SageMaker has them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

Record = dict[str, Any]
PAGE_SIZE = 10
# Where the API's documentation names another default than CreationTime, Ascending.
DEFAULT_SORT_BY = {"HyperParameterTuningJob": "Name"}
DESCENDING_BY_DEFAULT = frozenset({"TransformJob", "Model", "Endpoint", "EndpointConfig"})
TIMES = {
    "CreationTimeAfter": ("CreationTime", 1),
    "CreationTimeBefore": ("CreationTime", -1),
    "LastModifiedTimeAfter": ("LastModifiedTime", 1),
    "LastModifiedTimeBefore": ("LastModifiedTime", -1),
}
KNOWN = frozenset(
    {
        *TIMES,
        "NameContains",
        "StatusEquals",
        "SortBy",
        "SortOrder",
        "MaxResults",
        "NextToken",
        "WarmPoolStatusEquals",
    }
)


class ListingError(ValueError):
    """A list request that can't be answered as it was meant."""


def page(
    kind: str, items: Iterable[Record], request: Record, *, name_key: str, status_key: str | None
) -> tuple[list[Record], str | None]:
    """The page that was asked for, and the token of the next one; raises ListingError for an unknown filter or token."""
    unknown = sorted(set(request) - KNOWN)
    if unknown:
        raise ListingError(f"{', '.join(unknown)} is not available in the local account; leave it out")
    found = [item for item in items if _wanted(item, request, name_key, status_key)]
    keys = {"Name": name_key, "CreationTime": "CreationTime"} | ({"Status": status_key} if status_key else {})
    key = keys[request.get("SortBy", DEFAULT_SORT_BY.get(kind, "CreationTime"))]
    default = "Descending" if kind in DESCENDING_BY_DEFAULT else "Ascending"
    found.sort(key=lambda item: item[key], reverse=request.get("SortOrder", default) == "Descending")
    return slice_of(found, request)


def slice_of(found: list[Record], request: Record) -> tuple[list[Record], str | None]:
    """The page of a list that is in order; raises ListingError for a token that was not given out."""
    token = request.get("NextToken", "0")
    if not token.isdigit():
        raise ListingError(f"NextToken {token} was not given out by this operation")
    start, size = int(token), request.get("MaxResults", PAGE_SIZE)
    return found[start : start + size], str(start + size) if start + size < len(found) else None


def _wanted(item: Record, request: Record, name_key: str, status_key: str | None) -> bool:
    if request.get("NameContains", "") not in item[name_key]:
        return False
    if status_key and request.get("StatusEquals") not in (None, item[status_key]):
        return False
    pool = request.get("WarmPoolStatusEquals")
    if pool is not None and pool != item.get("WarmPoolStatus", {}).get("Status"):
        return False
    return all(
        (item[key] - _seconds(request[name])) * sign > 0
        for name, (key, sign) in TIMES.items()
        if name in request
    )


def _seconds(value: Any) -> float:
    """A time as JSON 1.1 carries it: seconds since 1970; a client's text is taken too."""
    if isinstance(value, int | float):
        return float(value)
    return value.timestamp() if isinstance(value, datetime) else datetime.fromisoformat(value).timestamp()

"""Whether the emulated account that answers on this machine is the one of this checkout."""

from __future__ import annotations

from typing import Any

import requests

from local.paths import LocalPaths
from ops.console import OperatorError

READY_SECONDS = 5


def ready(paths: LocalPaths) -> dict[str, Any] | None:
    """What the account says of its planes; None when nobody answers, or it is only starting or stopping.

    Raises OperatorError when the port belongs to another checkout's account, or to another program.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{paths.endpoint_url}/_updraft/ready", timeout=READY_SECONDS)
    except requests.RequestException:
        return None
    try:
        found = answer.json()
    except ValueError:
        found = None
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    directory = document.get("state_directory")
    if answer.status_code != 200 and directory is None:
        return None
    if directory != str(paths.root.resolve()):
        raise OperatorError(
            f"port {paths.port} on 127.0.0.1 is in use by {directory or 'another program'}; "
            "end it and run the same command again"
        )
    return document if answer.status_code == 200 else None

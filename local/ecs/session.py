"""Stands in for AWS's session-manager-plugin with the laptop's sessions of ECS Exec, called as that one is:

    RESPONSE REGION StartSession PROFILE REQUEST ENDPOINT

RESPONSE is the session as JSON, or the name of the variable that holds it. The command becomes this process, on this
terminal, with the container's environment and folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

VERSION = "1.2.707.0"
VARIABLE = "AWS_SSM_START_SESSION_RESPONSE"


def main(arguments: list[str]) -> int:
    """Take up the session once; 1 with a line on standard error when it can't be."""
    if arguments == ["--version"]:
        print(VERSION)
        return 0
    if len(arguments) != 6 or arguments[2] != "StartSession":
        print(
            "local.ecs.session: wants RESPONSE REGION StartSession PROFILE REQUEST ENDPOINT", file=sys.stderr
        )
        return 1
    response = os.environ[VARIABLE] if arguments[0] == VARIABLE else arguments[0]
    session = json.loads(response)
    file = Path(unquote(urlsplit(session["streamUrl"]).path))
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        print(f"Session {session['sessionId']} is gone: its token was used, or is too old", file=sys.stderr)
        return 1
    if document["token"] != session["tokenValue"]:
        print(f"Session {session['sessionId']}: wrong token", file=sys.stderr)
        return 1
    file.unlink()
    terminal = {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES") if name in os.environ}
    try:
        os.chdir(document["directory"])
        os.execve(document["argv"][0], document["argv"], document["environment"] | terminal)
    except OSError as error:
        print(f"{document['argv'][0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Session Manager: hands a session to AWS's own plugin, as the AWS CLI does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ops.console import OperatorError
from ops.target import Target

PLUGIN = "session-manager-plugin"
WHERE = "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
# Plugins after this one read the session from a variable: its token would be seen by everybody among the arguments.
LAST_WITHOUT_VARIABLE = (1, 2, 497, 0)
VARIABLE = "AWS_SSM_START_SESSION_RESPONSE"
VERSION_SECONDS = 20


def find_plugin() -> list[str]:
    """The plugin's command; raises OperatorError with how to get it when it isn't installed."""
    found = shutil.which(PLUGIN)
    if found is None:
        raise OperatorError(
            f"{PLUGIN} is not installed: AWS's sessions need it. Install it (macOS: brew install --cask "
            f"{PLUGIN}; Debian and Fedora: the package from {WHERE}) and run the same command again"
        )
    return [found]


def plugin_call(
    plugin: Sequence[str], target: Target, session: Mapping[str, Any], request: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """The plugin's arguments and environment for a started session.

    `session` holds `SessionId`, `StreamUrl` and `TokenValue` (of ECS with small first letters), `request` what
    StartSession was asked; the plugin repeats it to take up a session whose connection broke.
    """
    answer = json.dumps({name: value for name, value in session.items() if name != "ResponseMetadata"})
    environment = dict(os.environ)
    if _version(plugin) > LAST_WITHOUT_VARIABLE:
        environment[VARIABLE] = answer
        answer = VARIABLE
    profile = os.environ.get("AWS_PROFILE", "")
    endpoint = target.client("ssm").meta.endpoint_url
    arguments = [answer, target.config.region, "StartSession", profile, json.dumps(request), endpoint]
    return [*plugin, *arguments], environment


def _version(plugin: Sequence[str]) -> tuple[int, ...]:
    try:
        said = subprocess.run(
            [*plugin, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(
            f"{plugin[0]} does not run ({error}); install it again, for this machine's system"
        ) from error
    numbers = re.match(r"\d+(\.\d+)*$", said.strip())
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()

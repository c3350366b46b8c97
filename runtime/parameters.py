"""Parameters of SSM that something writes while it runs, and that aren't there before."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError


def is_absence(error: BotoCoreError | ClientError | ValueError) -> bool:
    """Whether an error of GetParameter says that there is no such parameter."""
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "ParameterNotFound"

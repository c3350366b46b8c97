"""Stand-in for the AWS CLI: `ecr get-login-password` and `s3 cp`, against the account.

Called as `python -m local.codebuild.tools.aws BUILD_DIRECTORY ARGUMENT …`.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from local.codebuild.tools.host import Host, RefusedError, call, options


def run(host: Host, arguments: list[str]) -> None:
    """Run one command; raises RefusedError for one that this stand-in hasn't."""
    command, rest = arguments[:2], arguments[2:]
    if command == ["ecr", "get-login-password"]:
        options(rest, {"--region"}, operands=0)
        print(login_password(host))
    elif command == ["s3", "cp"]:
        _, (source, target) = options(rest, {"--region"}, operands=2)
        copy(host, source, target)
    else:
        raise RefusedError(
            f"'{' '.join(command)}' is not available in a local build; 'ecr get-login-password' and 's3 cp' are"
        )


def login_password(host: Host) -> str:
    """The password in the registry's authorization token."""
    token = host.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    return base64.b64decode(token).decode().partition(":")[2]


def copy(host: Host, source: str, target: str) -> None:
    """One object to a file, or a file to an object."""
    if source.startswith("s3://") and not target.startswith("s3://"):
        place = Path(target)
        host.storage.download_file(source, place / source.rpartition("/")[2] if place.is_dir() else place)
    elif target.startswith("s3://") and not source.startswith("s3://"):
        host.storage.put(target, Path(source).read_bytes())
    else:
        raise RefusedError(f"s3 cp {source} {target}: one of them is an s3:// URI")
    print(f"copied {source} to {target}")


if __name__ == "__main__":
    sys.exit(call("aws", run, refused_status=252, failed_status=255))

"""Runs the emulated account: `python -m local.account --state-directory DIR --port PORT`.

The emulator reads its settings from the environment when it is imported, so they are set first.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from local.paths import LocalPaths
from local.ports import is_free

AIRPLAY_PORT = 5000


def main() -> int:
    """Serve until SIGTERM or SIGINT; one clear line and exit code 1 when it can't start."""
    parser = argparse.ArgumentParser(prog="python -m local.account", description=__doc__)
    parser.add_argument("--state-directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=LocalPaths.port)
    arguments = parser.parse_args()
    paths = LocalPaths(arguments.state_directory.resolve(), port=arguments.port)
    for port in (paths.port, paths.webserver_port, paths.flower_port, paths.mlflow_port):
        if not is_free(port):
            print(f"updraft: {taken(port)}", file=sys.stderr, flush=True)
            return 1
    os.environ.update(settings(paths))
    from local.account.server import serve

    return serve(paths)


def taken(port: int) -> str:
    """What is wrong with a port, and what to do about it."""
    airplay = " (macOS's AirPlay Receiver? System Settings, General, AirDrop & Handoff turns it off)"
    by = airplay if sys.platform == "darwin" and port == AIRPLAY_PORT else ""
    return f"port {port} on 127.0.0.1 is in use by another program{by}; end it and run the same command again"


def settings(paths: LocalPaths) -> dict[str, str]:
    """The emulator's environment: loopback only, state on disk, Lambdas as processes, nothing that it can do without."""
    return {
        "GATEWAY_PORT": str(paths.port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": paths.region,
        "AWS_DEFAULT_REGION": paths.region,
        "AWS_REGION": paths.region,
        "AWS_ACCESS_KEY_ID": paths.access_key_id,
        "AWS_SECRET_ACCESS_KEY": paths.secret_access_key,
        "AWS_ENDPOINT_URL": paths.endpoint_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(paths.account / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(paths.account / "s3"),
        "LAMBDA_EXECUTOR": "local",
        "NODE_PATH": os.environ.get("UPDRAFT_NODE_PATH", ""),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "/usr/bin:/bin")]),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        # Policies are evaluated, and signatures checked, for every key but the account's own.
        "AUTH": "true",
        # No engine: what would be a container is a process of ours.
        "DOCKER_HOST": f"unix://{paths.root}/no-docker.sock",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }


if __name__ == "__main__":
    sys.exit(main())

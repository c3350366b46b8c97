#!/usr/bin/env python3
"""Has the candidate import-tested with the very image that will serve it (AfterInstall)."""

import platform_client  # type: ignore[import-not-found]
import release_files  # type: ignore[import-not-found]


def verify() -> str:
    """Ask the verifier; a release that fails its test is removed, one that passes gets its name."""
    version = release_files.bundle_manifest().version
    try:
        found = platform_client.Verifier().ask("/verify", {"version": version})
    except release_files.HookError:
        release_files.reject()
        raise
    return f"{release_files.accept()}: {', '.join(found['dag_ids'])}"


if __name__ == "__main__":
    release_files.run(verify)

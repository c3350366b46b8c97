#!/usr/bin/env python3
"""Waits until the dag-processor serves the release, then prunes old ones (ValidateService)."""

import platform_client  # type: ignore[import-not-found]
import release_files  # type: ignore[import-not-found]
import switch  # type: ignore[import-not-found]

# Below this hook's time-out in the AppSpec, so that the pointer is set back by the hook itself.
SERVED_SECONDS = 150


def validate() -> str:
    """Every DAG of the release is parsed and served; otherwise the pointer goes back to what it was."""
    version = release_files.bundle_manifest().version
    verifier, pointer = platform_client.Verifier(), platform_client.Pointer()
    if (live := pointer.read()) != version:
        raise release_files.HookError(f"{pointer.name} is {live!r} and should be {version!r}")
    try:
        served = verifier.ask("/served", {"version": version, "timeout_seconds": SERVED_SECONDS})
    except release_files.HookError:
        if switch.PREVIOUS.exists():
            pointer.write(switch.PREVIOUS.read_text(encoding="utf-8"))
        raise
    pruned = release_files.prune(set(served["versions_in_use"]), version)
    return f"release {version} is served: {', '.join(served['dag_ids'])}; {pruned}"


if __name__ == "__main__":
    release_files.run(validate)

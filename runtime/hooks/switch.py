#!/usr/bin/env python3
"""Points Airflow to the release (ApplicationStart)."""

import platform_client  # type: ignore[import-not-found]
import release_files  # type: ignore[import-not-found]

PREVIOUS = release_files.BUNDLE / "previous-version"


def switch() -> str:
    """Set the pointer to the accepted release, and keep what it was for the validation to go back to."""
    manifest = release_files.bundle_manifest()
    release_files.check_release(release_files.releases_directory() / manifest.version, manifest)
    pointer = platform_client.Pointer()
    previous = pointer.read()
    if previous != manifest.version:
        PREVIOUS.write_text(previous, encoding="utf-8")
        pointer.write(manifest.version)
    release_files.mark_pushed(manifest.version)
    return f"{pointer.name} is {manifest.version}, it was {previous}"


if __name__ == "__main__":
    release_files.run(switch)

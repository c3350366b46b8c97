#!/usr/bin/env python3
"""Copies the bundle's release to the shared file system (AfterInstall)."""

import release_files  # type: ignore[import-not-found]

if __name__ == "__main__":
    release_files.run(release_files.stage)

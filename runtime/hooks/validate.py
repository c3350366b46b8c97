#!/usr/bin/env python3
"""Checks that the release is live (ValidateService)."""

import release_files  # type: ignore[import-not-found]

if __name__ == "__main__":
    release_files.run(release_files.validate)

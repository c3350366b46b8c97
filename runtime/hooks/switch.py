#!/usr/bin/env python3
"""Points Airflow to the release (ApplicationStart)."""

import release_files  # type: ignore[import-not-found]

if __name__ == "__main__":
    release_files.run(release_files.switch)

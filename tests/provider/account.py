"""The emulated account with SageMaker's plane alone: `python -m tests.provider.account DIRECTORY PORT`."""

import os
import sys
from pathlib import Path

from local.account.__main__ import settings
from local.paths import LocalPaths

if __name__ == "__main__":
    paths = LocalPaths(Path(sys.argv[1]), port=int(sys.argv[2]))
    # The emulator reads its settings when it is imported.
    os.environ.update(settings(paths))
    from local.account import server

    server.PLANES = ("sagemaker",)
    sys.exit(server.serve(paths))

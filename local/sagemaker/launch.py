"""Starting an instance: a process of its own, so that it outlives a restart of the account."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from local import processes
from local.paths import ROOT, LocalPaths


def launch(paths: LocalPaths, process_name: str, module: str, directory: Path, *, log_name: str) -> None:
    """Run `module` on its directory; raises OSError when it can't be started."""
    process = processes.start(
        paths,
        process_name,
        [sys.executable, "-m", module, str(directory)],
        log_file=paths.log / "sagemaker" / f"{log_name}.log",
        working_directory=ROOT,
    )
    # Reaped as soon as it ends, so that it is never a zombie.
    threading.Thread(target=process.wait, daemon=True).start()

"""The notebook runs from its first cell to its last against the account's SageMaker."""

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.bootstrap import NOTEBOOK, ensure_environment
from tests.end_to_end.platform import PATHS, ROOT

pytestmark = pytest.mark.platform

SECONDS = 900
# Runs a notebook in its folder's environment and leaves what it printed and drew in a copy.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def executed(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The notebook with its outputs."""
    assert demo
    copy = tmp_path_factory.mktemp("notebook") / "flights.ipynb"
    python = ensure_environment(NOTEBOOK)
    ran = subprocess.run(
        [python, "-c", EXECUTE, ROOT / "notebooks" / "flights.ipynb", copy],
        env={
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "HOME": str(copy.parent),
            "JUPYTER_PLATFORM_DIRS": "1",
            "AWS_ENDPOINT_URL": PATHS.endpoint_url,
            "AWS_ACCESS_KEY_ID": PATHS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": PATHS.secret_access_key,
            "AWS_DEFAULT_REGION": PATHS.region,
            "UPDRAFT_ENVIRONMENT": "local",
            "SAMPLE": "30000",
            "TUNING_JOBS": "2",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    notebook: dict[str, Any] = json.loads(Path(copy).read_text(encoding="utf-8"))
    return notebook


def _outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_every_cell_ran_and_every_plot_was_drawn(executed: dict[str, Any]) -> None:
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    plots = [output for output in _outputs(executed) if "image/png" in output.get("data", {})]
    assert len(plots) == 4


def test_model_beats_the_baseline_by_far(executed: dict[str, Any]) -> None:
    [last] = executed["cells"][-1]["outputs"]
    auc = ast.literal_eval("".join(last["data"]["text/plain"]))
    assert auc["best of the search"] > auc["baseline: share at the same hour"] + 0.03

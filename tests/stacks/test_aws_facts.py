"""What AWS does to deliveries and functions, and no emulator shows: held against the files themselves."""

import ast
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent.parent
HOOKS = ROOT / "runtime" / "hooks"
# CodeDeploy gives up on an agent that it has lost after an hour; a push must be told long before.
LONGEST_DEPLOYMENT_SECONDS = 1800


def appspec() -> dict[str, object]:
    found = yaml.safe_load((HOOKS / "appspec.yml").read_text())
    assert isinstance(found, dict)
    return found


def test_codedeploy_copies_no_files_itself() -> None:
    # It would delete at each deployment what the one before had copied, releases in use among them.
    assert "files" not in appspec()


def test_hooks_end_long_before_codedeploy_loses_patience() -> None:
    hooks = appspec()["hooks"]
    assert isinstance(hooks, dict)
    steps = [step for hook in hooks.values() for step in hook]
    assert all("timeout" in step for step in steps)
    assert sum(step["timeout"] for step in steps) <= LONGEST_DEPLOYMENT_SECONDS


@pytest.mark.parametrize("path", sorted([*HOOKS.glob("*.py"), ROOT / "runtime" / "bundle.py"]), ids=str)
def test_no_release_is_switched_by_a_link_on_efs(path: Path) -> None:
    # NFS caches attributes for up to a minute on Fargate: a link would be seen late, and at different times.
    called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not called & {"symlink", "symlink_to", "link", "hardlink_to"}

"""What runs on AWS never imports what describes it, what operates it, or the laptop; and the other way round."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"stacks", "lambdas", "runtime", "dags", "ml", "ops", "local", "tests", "benchmarks", "notebooks"}
FORBIDDEN = {
    "stacks": {"local", "ops", "runtime", "lambdas", "dags", "ml", "tests"},
    "lambdas": {"local", "ops", "stacks", "dags", "ml", "tests"},
    "runtime": {"local", "ops", "stacks", "lambdas", "dags", "ml", "tests"},
    "dags": {"local", "ops", "stacks", "lambdas", "tests"},
    "ml": {"local", "ops", "stacks", "lambdas", "dags", "runtime", "tests"},
    "notebooks": PARTS - {"notebooks"},
    "local": {"stacks", "lambdas", "dags", "ml", "runtime", "ops", "tests"},
}
LEAF_STACKS = {"delivery", "scaling", "workflows", "tracking", "pets"}


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def trespasses(part: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / part).rglob("*.py"))
        for module in imported_modules(path.read_text())
        if module.split(".")[0] in FORBIDDEN[part]
    ]


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_part_stays_within_its_borders(part: str) -> None:
    assert trespasses(part) == []


def test_leaf_stacks_never_import_one_another() -> None:
    found = [
        f"{leaf} imports {module}"
        for leaf in sorted(LEAF_STACKS)
        for module in imported_modules((ROOT / "stacks" / f"{leaf}.py").read_text())
        if module.startswith("stacks.") and module.split(".")[1] in LEAF_STACKS - {leaf}
    ]
    assert found == []


def test_a_trespass_is_seen() -> None:
    assert "local.paths" in list(imported_modules("def f():\n    from local.paths import LocalPaths\n"))

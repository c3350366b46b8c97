"""What becomes a bundle, and what does not; the rules of a release, by their mistakes."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.delivery.aws_model import push_on_aws
from runtime import release_check, verifier
from runtime.release import HOOKS, build_release
from runtime.release_check import (
    MANIFEST,
    Manifest,
    ReleaseError,
    check_release,
    path_mistake,
    read_manifest,
    version_of,
)


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    (folder / "domain").mkdir(parents=True)
    (folder / "domain" / "one.py").write_text("x = 1\n")
    (folder / "query.sql").write_text("select 1\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "one.pyc").write_bytes(b"")
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A whole release of two files, with its manifest."""
    folder = tmp_path / "release"
    (folder / "domain").mkdir(parents=True)
    (folder / "domain" / "one.py").write_text("x = 1\n")
    (folder / "two.py").write_text("x = 2\n")
    files = {name: release_check._digest(folder / name) for name in ("domain/one.py", "two.py")}
    (folder / MANIFEST).write_text(json.dumps({"version": version_of(files), "files": files}))
    return folder


def write_manifest(folder: Path, **changed: object) -> None:
    content = json.loads((folder / MANIFEST).read_text()) | changed
    (folder / MANIFEST).write_text(json.dumps(content))


def test_equal_content_makes_equal_archives(dags: Path, tmp_path: Path) -> None:
    first = build_release(dags, [], tmp_path / "a")
    os.utime(dags / "query.sql", (1, 1))
    second = build_release(dags, [], tmp_path / "b")
    assert first.archive.read_bytes() == second.archive.read_bytes()
    assert first.archive.name == f"{first.version}.zip"
    assert sorted(first.files) == ["domain/one.py", "query.sql"]
    assert first.version == version_of(first.files)


def test_changed_content_makes_another_version(dags: Path, tmp_path: Path) -> None:
    first = build_release(dags, [], tmp_path)
    (dags / "query.sql").write_text("select 2\n")
    assert build_release(dags, [], tmp_path).version != first.version


def test_extra_folder_lies_below_its_own_name(dags: Path, tmp_path: Path) -> None:
    ml = tmp_path / "ml"
    ml.mkdir()
    (ml / "train.py").write_text("")
    assert "ml/train.py" in build_release(dags, [ml], tmp_path).files


def test_link_out_of_the_tree_is_refused(dags: Path, tmp_path: Path) -> None:
    (dags / "link.py").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match=r"link\.py: is a symbolic link"):
        build_release(dags, [], tmp_path)


def test_folder_without_python_files_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    with pytest.raises(ReleaseError, match="is no folder"):
        build_release(folder, [], tmp_path)
    folder.mkdir()
    with pytest.raises(ReleaseError, match="is empty"):
        build_release(folder, [], tmp_path)
    (folder / "a.txt").write_text("")
    with pytest.raises(ReleaseError, match="no Python files"):
        build_release(folder, [], tmp_path)


@pytest.mark.parametrize("name", ["back\\slash.py", "new\nline.py"])
def test_name_that_cannot_be_unpacked_everywhere_is_refused(dags: Path, tmp_path: Path, name: str) -> None:
    (dags / name).write_text("")
    with pytest.raises(ReleaseError, match="backslash or a control character"):
        build_release(dags, [], tmp_path)


def test_name_that_is_not_utf8_is_refused(dags: Path, tmp_path: Path) -> None:
    (dags / os.fsdecode(b"caf\xe9.py")).write_text("")
    with pytest.raises(ReleaseError, match="not UTF-8"):
        build_release(dags, [], tmp_path)


def test_own_manifest_in_the_folder_is_refused(dags: Path, tmp_path: Path) -> None:
    (dags / MANIFEST).write_text("{}")
    with pytest.raises(ReleaseError, match="kept for the release's own manifest"):
        build_release(dags, [], tmp_path)


def test_huge_file_is_refused_without_being_read(dags: Path, tmp_path: Path) -> None:
    with (dags / "huge.bin").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(ReleaseError) as caught:
        build_release(dags, [], tmp_path)
    assert "huge.bin: has 2147483648 bytes" in str(caught.value)
    assert "a release may have 268435456" in str(caught.value)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch, dags: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(release_check, "MOST_FILES", 1)
    with pytest.raises(ReleaseError, match="2 files, a release may have 1"):
        build_release(dags, [], tmp_path)


def test_largest_release_leaves_half_of_each_time_limit_on_efs() -> None:
    phases = push_on_aws(files=release_check.MOST_FILES, import_seconds=0, parse_seconds=0)["phase_seconds"]
    [stage, _] = yaml.safe_load((HOOKS / "appspec.yml").read_text())["hooks"]["AfterInstall"]
    assert stage["location"] == "hooks/stage.py"
    assert phases["stage_on_efs"] < stage["timeout"] / 2
    assert phases["import_test"] < verifier.VISIBLE_SECONDS / 2
    served = re.search(r"^SERVED_SECONDS = (\d+)$", (HOOKS / "validate.py").read_text(), re.MULTILINE)
    assert served is not None
    assert phases["parsed"] < int(served[1]) / 2


def test_whole_release_passes(release: Path) -> None:
    check_release(release, read_manifest(release))


def test_every_surplus_missing_and_linked_file_is_named_at_once(release: Path) -> None:
    manifest = read_manifest(release)
    (release / "more.py").write_text("")
    (release / "two.py").unlink()
    (release / "link").symlink_to("/etc")
    with pytest.raises(ReleaseError) as caught:
        check_release(release, manifest)
    for text in ("its manifest lacks: more.py", "lacks two.py", "link: is a symbolic link"):
        assert text in str(caught.value)


def test_changed_file_is_named(release: Path) -> None:
    (release / "two.py").write_text("x = 3\n")
    with pytest.raises(ReleaseError, match=r"two\.py: differs from its hash"):
        check_release(release, read_manifest(release))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"version": "0" * 16}, "says version '0000000000000000'"),
        ({"files": {}}, "names no files"),
        ({"files": {"a": "0"}}, "not 64 hex digits"),
        ({"files": {"a": 1}}, "not 64 hex digits"),
        ({"files": 3}, "is no manifest"),
        ({"files": {"../outside": "0" * 64}}, "no path inside a release"),
    ],
)
def test_wrong_manifest_is_refused(release: Path, changed: dict[str, object], text: str) -> None:
    write_manifest(release, **changed)
    with pytest.raises(ReleaseError, match=text):
        read_manifest(release)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null"])
def test_garbage_is_no_manifest(release: Path, content: bytes) -> None:
    (release / MANIFEST).write_bytes(content)
    with pytest.raises(ReleaseError, match="is no manifest of a release"):
        read_manifest(release)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/x", "a/../b", "a//b", ".", "a\\b", "", "a\n", 3, "./a", "a/", MANIFEST]
)
def test_path_that_leaves_the_release_is_a_mistake(path: object) -> None:
    assert path_mistake(path)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\/"), min_size=1),
        min_size=1,
    )
)
def test_accepted_path_stays_inside(parts: list[str]) -> None:
    path = "/".join(parts)
    if not path_mistake(path):
        resolved = os.path.normpath(os.path.join("/release", path))  # noqa: PTH118
        assert resolved == f"/release/{path}"


@given(
    st.dictionaries(st.text(min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1)
)
def test_version_depends_on_content_alone(files: dict[str, str]) -> None:
    backwards = dict(reversed(list(files.items())))
    assert version_of(files) == version_of(backwards)
    name = next(iter(files))
    assert version_of(files | {name: "z" * 64}) != version_of(files)
    assert Manifest(version_of(files), files).version == version_of(files)

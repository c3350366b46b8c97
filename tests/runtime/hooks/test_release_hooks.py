"""A bundle built by `runtime.release` and unpacked, staged, switched and validated by the hooks in it."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from runtime.release import Release, ReleaseError, build_release, version_of


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    (folder / "domain").mkdir(parents=True)
    (folder / "domain" / "one.py").write_text("x = 1\n")
    (folder / "query.sql").write_text("select 1\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "one.pyc").write_bytes(b"")
    return folder


class Parameters:
    def __init__(self) -> None:
        self.values = {"/updraft/test/bundle/pointer": "none"}

    def put_parameter(self, *, Name: str, Value: str, Type: str, Overwrite: bool) -> None:
        assert (Type, Overwrite) == ("String", True)
        self.values[Name] = Value

    def get_parameter(self, *, Name: str) -> dict[str, dict[str, str]]:
        return {"Parameter": {"Value": self.values[Name]}}


class Bastion:
    def __init__(self, folder: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
        self.version = release.version
        self.releases = folder / "releases"
        self.releases.mkdir()
        self.revision = folder / "deployment-archive"
        with zipfile.ZipFile(release.archive) as archive:
            archive.extractall(self.revision)
        monkeypatch.setenv("UPDRAFT_RELEASES_DIRECTORY", str(self.releases))
        monkeypatch.setenv("UPDRAFT_SSM_PREFIX", "/updraft/test")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        self.hooks = self._load(self.revision / "hooks" / "release_files.py", monkeypatch)
        self.parameters = Parameters()
        clients = SimpleNamespace(client=lambda *_, **__: self.parameters)
        monkeypatch.setattr(self.hooks, "boto3", clients)

    def _load(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        spec = importlib.util.spec_from_file_location("hooks_of_bundle", file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        # dataclasses look their module up while they are made.
        monkeypatch.setitem(sys.modules, "hooks_of_bundle", module)
        spec.loader.exec_module(module)
        return module

    @property
    def pointer(self) -> str:
        return self.parameters.values["/updraft/test/bundle/pointer"]


@pytest.fixture
def bastion(dags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bastion:
    return Bastion(tmp_path, build_release(dags, [], tmp_path / "out"), monkeypatch)


def test_equal_content_makes_equal_archives(dags: Path, tmp_path: Path) -> None:
    first = build_release(dags, [], tmp_path / "a")
    (dags / "query.sql").touch()
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


def test_release_is_staged_then_switched_then_valid(bastion: Bastion) -> None:
    with pytest.raises(bastion.hooks.HookError):
        bastion.hooks.switch()
    assert bastion.pointer == "none"
    assert "is staged with 2 files" in bastion.hooks.stage()
    assert bastion.pointer == "none"
    bastion.hooks.switch()
    assert bastion.pointer == bastion.version
    bastion.hooks.validate()
    manifest = json.loads((bastion.releases / bastion.version / ".release.json").read_text())
    assert manifest.keys() == {"version", "created_at", "files"}
    assert [path.name for path in bastion.releases.iterdir()] == [bastion.version]


def test_staging_twice_changes_nothing(bastion: Bastion) -> None:
    bastion.hooks.stage()
    before = (bastion.releases / bastion.version).stat().st_mtime_ns
    assert "already" in bastion.hooks.stage()
    assert (bastion.releases / bastion.version).stat().st_mtime_ns == before


def test_changed_file_in_the_bundle_is_not_staged(bastion: Bastion) -> None:
    (bastion.revision / "release" / "query.sql").write_text("drop\n")
    with pytest.raises(bastion.hooks.HookError, match="differs from its hash"):
        bastion.hooks.stage()
    assert list(bastion.releases.iterdir()) == []


def test_surplus_missing_and_linked_files_are_not_staged(bastion: Bastion) -> None:
    release = bastion.revision / "release"
    (release / "more.py").write_text("")
    with pytest.raises(bastion.hooks.HookError, match="its manifest lacks"):
        bastion.hooks.stage()
    (release / "more.py").unlink()
    (release / "query.sql").unlink()
    with pytest.raises(bastion.hooks.HookError, match=r"lacks query\.sql"):
        bastion.hooks.stage()
    (release / "query.sql").symlink_to("/etc/hostname")
    with pytest.raises(bastion.hooks.HookError, match="symbolic link"):
        bastion.hooks.stage()


@pytest.mark.parametrize("path", ["../outside", "/etc/x", "a/../b", "a//b", ".", "a\\b"])
def test_manifest_with_a_path_outside_of_the_release_is_refused(bastion: Bastion, path: str) -> None:
    manifest = {"version": "0" * 16, "files": {path: "0"}}
    (bastion.revision / "release" / ".release.json").write_text(json.dumps(manifest))
    with pytest.raises(bastion.hooks.HookError, match="no path inside a release"):
        bastion.hooks.stage()


def test_manifest_with_a_wrong_version_is_refused(bastion: Bastion) -> None:
    file = bastion.revision / "release" / ".release.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": "0" * 16}))
    with pytest.raises(bastion.hooks.HookError, match="says version"):
        bastion.hooks.stage()


def test_damaged_release_is_neither_switched_to_nor_valid(bastion: Bastion) -> None:
    bastion.hooks.stage()
    (bastion.releases / bastion.version / "query.sql").write_text("drop\n")
    for hook in (bastion.hooks.stage, bastion.hooks.switch):
        with pytest.raises(bastion.hooks.HookError, match="differs"):
            hook()
    assert bastion.pointer == "none"


def test_pointer_to_another_release_is_not_valid(bastion: Bastion) -> None:
    bastion.hooks.stage()
    with pytest.raises(bastion.hooks.HookError, match="is 'none' and should be"):
        bastion.hooks.validate()


def test_missing_environment_is_named(bastion: Bastion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPDRAFT_RELEASES_DIRECTORY")
    with pytest.raises(bastion.hooks.HookError, match="UPDRAFT_RELEASES_DIRECTORY is not set"):
        bastion.hooks.stage()

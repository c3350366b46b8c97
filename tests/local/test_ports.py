"""Ports of endpoints: kept for as long as the endpoint exists, and chosen again where a power cut emptied the file."""

from pathlib import Path

from local.ports import free_port, stable_port


def test_port_is_kept_and_nobody_elses(tmp_path: Path) -> None:
    first = free_port()
    one = stable_port(tmp_path / "one", first=first)
    assert stable_port(tmp_path / "two", first=first) != one
    assert stable_port(tmp_path / "one", first=free_port()) == one


def test_emptied_file_is_no_port(tmp_path: Path) -> None:
    first = free_port()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "port").touch()
    port = stable_port(tmp_path / "one", first=first)
    assert port >= first
    assert (tmp_path / "one" / "port").read_text() == str(port)
    assert list((tmp_path / "one").iterdir()) == [tmp_path / "one" / "port"]

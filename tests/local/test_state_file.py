"""What is saved is whole, whoever writes at the same time and whatever goes wrong."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from local.state_file import SavedTables, write_whole


class Tables(SavedTables):
    """Tables as a service declares them."""

    things: dict[str, int]
    order: list[str]
    newer: dict[str, int]


def test_writers_at_the_same_time_leave_one_of_their_documents(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                write_whole(file, [number] * 500)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = json.loads(file.read_text())
    assert failures == []
    assert len(document) == 500
    assert len(set(document)) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_document_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_whole(file, {"old": True})
    with pytest.raises(TypeError):
        write_whole(file, {"new": object()})
    assert json.loads(file.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [file]


def test_tables_come_back_and_are_written_only_when_changed(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "state.json"
    tables = Tables(file, things={}, order=[])
    tables.save()
    assert not file.exists()
    tables.things["a"] = 1
    tables.changed()
    tables.save()
    again = Tables(file, things={}, order=[], newer={})
    assert again.things == {"a": 1}
    assert again.newer == {}


@pytest.mark.parametrize(("given", "mode"), [({}, 0o600), ({"mode": 0o644}, 0o644)])
def test_only_the_owner_reads_unless_others_are_named(
    tmp_path: Path, given: dict[str, int], mode: int
) -> None:
    file = tmp_path / "state.json"
    write_whole(file, {}, **given)
    assert file.stat().st_mode & 0o777 == mode

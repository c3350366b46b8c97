"""The nightly clean-up keeps what the environment says, and no prompt waits for anybody."""

from datetime import UTC, datetime

from runtime import cleanup


def test_everything_older_than_the_retention_goes_for_good() -> None:
    command = cleanup.command(datetime(2026, 3, 31, 3, 30, tzinfo=UTC), 90)
    assert command[:3] == ["airflow", "db", "clean"]
    assert command[command.index("--clean-before-timestamp") + 1] == "2025-12-31T03:30:00+00:00"
    assert {"--yes", "--skip-archive", "--error-on-cleanup-failure"} <= set(command)

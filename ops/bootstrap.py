"""Makes what a command needs under `.updraft/`, then hands over to the command line.

Runs on the interpreter that the user has, before anything is installed: standard library only.
Each part is made from a committed, hashed lock and carries a stamp with that lock's digest, written last:
an interrupted installation is taken up again, a changed lock refreshes the part, anything else starts at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".updraft"
NODE_DIRECTORY = HOME / "node"
TOOLS = "tools"
CLIENTS = "clients"
KUBERNETES = "kubernetes"
NOTEBOOK = "notebook"
CHECKOV = "checkov"
# The version before the image's: what an upgrade comes from.
PREVIOUS_AIRFLOW = "airflow-previous"
LOCKS = {
    TOOLS: "requirements.txt",
    CLIENTS: "tests/end_to_end/clients/requirements.txt",
    KUBERNETES: "tests/pipelines/kubernetes/requirements.txt",
    NOTEBOOK: "notebooks/requirements.txt",
    CHECKOV: "ops/checkov.txt",
    PREVIOUS_AIRFLOW: "benchmarks/upgrade/requirements.txt",
}
MINIMUM_FREE_MIB = {TOOLS: 1500, "node": 300}
DEFAULT_FREE_MIB = 1200
# The real file: a link to the interpreter may be gone tomorrow, and the environments with it.
PYTHON = Path(sys.executable).resolve()


class BootstrapError(Exception):
    """Something that the user has to mend before anything can be installed."""


def environment_python(name: str) -> Path:
    """The interpreter of an environment: one of LOCKS, or the name of a folder in `docker/`."""
    return HOME / "envs" / name / "bin" / "python"


def lock_of(name: str) -> Path:
    """The hashed lock that an environment is made from."""
    return ROOT / LOCKS.get(name, f"docker/{name}/requirements.txt")


def ensure_environment(name: str) -> Path:
    """Make or refresh one Python environment and return its interpreter.

    Raises BootstrapError when the lock doesn't exist, the disk is full or the installation fails.
    """
    lock = lock_of(name)
    if not lock.is_file():
        raise BootstrapError(f"no lock for the environment '{name}': {lock.relative_to(ROOT)} does not exist")
    python = environment_python(name)
    stamp = HOME / "envs" / f"{name}.made"
    wanted = _digest(lock)
    if _is_made(stamp, wanted, python):
        return python
    with exclusive(f"env-{name}"):
        if _is_made(stamp, wanted, python):
            return python
        stamp.unlink(missing_ok=True)
        _require_free_disk(name)
        uv = _ensure_uv()
        with _progress(f"making the Python environment '{name}'"):
            if not _works(python):
                _run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, python.parent.parent])
            # Compiling once here spares every process of the platform from compiling for itself.
            options = ["--quiet", "--require-hashes", "--compile-bytecode", "--python"]
            _run([uv, "pip", "sync", *options, python, lock], env=_with_wheels_of_pip())
        _write_stamp(stamp, wanted)
    return python


def ensure_node() -> Path:
    """Make or refresh Node's packages (the CDK CLI among them) and return the `cdk` executable."""
    source = ROOT / "ops" / "node"
    cdk = NODE_DIRECTORY / "node_modules" / ".bin" / "cdk"
    stamp = HOME / "node.made"
    wanted = _digest(source / "package-lock.json")
    if _is_made(stamp, wanted, cdk):
        return cdk
    with exclusive("node"):
        if _is_made(stamp, wanted, cdk):
            return cdk
        stamp.unlink(missing_ok=True)
        _require_free_disk("node")
        NODE_DIRECTORY.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(source / name, NODE_DIRECTORY / name)
        with _progress("installing the CDK CLI"):
            _run(
                [
                    environment_python(TOOLS).with_name("npm"),
                    "ci",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ],
                directory=NODE_DIRECTORY,
                env={**os.environ, "PATH": f"{environment_python(TOOLS).parent}:{os.environ['PATH']}"},
            )
        _write_stamp(stamp, wanted)
    return cdk


def _ensure_uv() -> Path:
    uv = HOME / "uv" / "bin" / "uv"
    lock = ROOT / "ops" / "uv.txt"
    stamp = HOME / "uv.made"
    wanted = _digest(lock)
    if _is_made(stamp, wanted, uv):
        return uv
    with exclusive("uv"):
        if _is_made(stamp, wanted, uv):
            return uv
        _require_pip()
        with _progress("installing uv"):
            _run([PYTHON, "-m", "venv", "--clear", HOME / "uv"])
            _run(
                [HOME / "uv" / "bin" / "python", "-m", "pip", "install", "-q", "--require-hashes", "-r", lock]
            )
        _write_stamp(stamp, wanted)
    return uv


def _require_pip() -> None:
    """Raise BootstrapError where Python can't put pip into an environment: Debian and Ubuntu package that apart."""
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise BootstrapError(
            f"{PYTHON} can't make environments: it has no ensurepip. On Debian and Ubuntu that is in the package "
            f"python3-venv, for this Python {package}: install it (sudo apt install {package}) and run the same "
            "command again"
        )


def _is_made(stamp: Path, wanted: str, product: Path) -> bool:
    return product.exists() and stamp.is_file() and stamp.read_text() == wanted


def _write_stamp(stamp: Path, wanted: str) -> None:
    partial = stamp.with_suffix(".partial")
    partial.write_text(wanted)
    partial.replace(stamp)


def _with_wheels_of_pip() -> dict[str, str]:
    """Where this machine's pip is told to look for wheels, uv looks too."""
    links = os.environ.get("PIP_FIND_LINKS")
    return {**({"UV_FIND_LINKS": ",".join(links.split())} if links else {}), **os.environ}


def _caches() -> dict[str, str]:
    """Where uv and npm keep what they fetch, for a user without a home that can be written to; else their own."""
    try:
        writable = os.access(Path.home(), os.W_OK)
    except RuntimeError:
        # Neither HOME nor an entry for this user, as in a container that was given a number for one.
        writable = False
    return {} if writable else {"UV_CACHE_DIR": f"{HOME}/cache/uv", "npm_config_cache": f"{HOME}/cache/npm"}


def _digest(lock: Path) -> str:
    interpreter = f"{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}".encode()
    return hashlib.sha256(lock.read_bytes() + interpreter).hexdigest()


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    check = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def _require_free_disk(name: str) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    needed_mib = MINIMUM_FREE_MIB.get(name, DEFAULT_FREE_MIB)
    free_mib = shutil.disk_usage(HOME).free // 2**20
    if free_mib < needed_mib:
        raise BootstrapError(
            f"not enough disk for '{name}': {free_mib} MiB free at {HOME}, needs {needed_mib} MiB. "
            "Free some space and run the same command again."
        )


def _run(
    command: list[str | Path], *, directory: Path | None = None, env: dict[str, str] | None = None
) -> None:
    ran = subprocess.run(
        command,
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        tail = "\n  ".join(ran.stdout.strip().splitlines()[-12:])
        raise BootstrapError(
            f"'{Path(command[0]).name} {command[1]}' ended with {ran.returncode}:\n  {tail}\n"
            "Run the same command again: it goes on where it stopped."
        )


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """One installer at a time for each part, across processes; freed by the kernel when a process dies."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"updraft: waiting for another command that works on {name}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"updraft: {what} …", file=sys.stderr, flush=True)
    yield
    print(f"updraft: {what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Make the tools' environment and become the command line in it."""
    os.environ.update({name: value for name, value in _caches().items() if name not in os.environ})
    try:
        python = ensure_environment(TOOLS)
    except BootstrapError as error:
        print(f"updraft: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"updraft: {error.strerror}: {error.filename or HOME}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("updraft: interrupted; the next call goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    # The CDK's library starts `node` when it is imported, and a user's machine may have none.
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    os.execve(python, [str(python), "-m", "ops", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()

"""Run a command as `nobody`: `python -m local.database.unprivileged COMMAND ARGUMENT…`.

PostgreSQL refuses to run as root. Inside a container everything is root, so the server becomes `nobody`
there. It keeps the right to pass through folders that `nobody` may not enter (CAP_DAC_OVERRIDE, Linux), so
that nobody's home directory has to be opened to other users.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def account() -> pwd.struct_passwd:
    """Return the account that stands in for root."""
    return pwd.getpwnam("nobody")


def main() -> None:
    """Become `nobody`, keep one capability, and replace this process by the command."""
    command = sys.argv[1:]
    if not command:
        raise SystemExit("usage: python -m local.database.unprivileged COMMAND ARGUMENT…")
    user = account()
    library = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform == "linux"
    if linux:
        _check(library.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    if linux:
        _keep_capability(library)
    os.execv(command[0], command)


def _keep_capability(library: ctypes.CDLL) -> None:
    header = _Header(LINUX_CAPABILITY_VERSION_3, 0)
    mask = 1 << CAP_DAC_OVERRIDE
    data = (_Data * 2)(_Data(mask, mask, mask), _Data(0, 0, 0))
    _check(library.capset(ctypes.byref(header), data), "capset")
    _check(
        library.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0), "prctl(PR_CAP_AMBIENT)"
    )


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call} failed: {os.strerror(number)}; run as a normal user instead of root")


if __name__ == "__main__":
    main()

"""Runs a program under the system call filter of a unit, as systemd sets it: ``... UNIT PROGRAM ARGUMENT``.

systemd itself need not run: its list of calls comes from ``systemd-analyze``, and the filter from libseccomp,
which it uses as well.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

LIBRARY: Final = "libseccomp.so.2"

_ALLOW: Final = 0x7FFF0000
_PERMISSION_DENIED: Final = 0x00050001
_SET_NO_NEW_PRIVS: Final = 38
_SET_MEMORY_DENY_WRITE_EXECUTE: Final = 65
_ALWAYS: Final = frozenset({
    "clock_gettime", "clock_nanosleep", "execve", "exit", "exit_group", "getrlimit", "gettimeofday",
    "nanosleep", "pause", "prlimit64", "restart_syscall", "rt_sigreturn", "sigreturn", "time",
})  # fmt: skip
"""Calls that systemd allows with every list of allowed ones."""


def calls(name: str) -> set[str]:
    """Return the system calls of a set such as ``@system-service``."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: set[str] = set()
    for line in map(str.strip, done.stdout.splitlines()[1:]):
        if line.startswith("@"):
            found |= calls(line)
        elif line and not line.startswith("#"):
            found.add(line)
    return found


def allowed(unit: str) -> set[str]:
    """Return the system calls that the text of a unit allows."""
    found: set[str] = set()
    for names in re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE):
        for name in names.removeprefix("~").split():
            found = found - calls(name) if names.startswith("~") else found | calls(name)
    return found | _ALWAYS


def restrict(names: set[str]) -> None:
    """Let this process and its children only make some system calls; others fail with EPERM."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_PERMISSION_DENIED))
    for name in sorted(names):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # it exists on this machine
            library.seccomp_rule_add(context, _ALLOW, number, 0)
    current = ctypes.CDLL(None)
    current.prctl(_SET_MEMORY_DENY_WRITE_EXECUTE, 1, 0, 0, 0)  # from Linux 6.3
    if current.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.seccomp_load(context):
        raise OSError("the filter cannot be set")


if __name__ == "__main__":
    restrict(allowed(Path(sys.argv[1]).read_text(encoding="utf-8")))
    os.execvp(sys.argv[2], sys.argv[2:])

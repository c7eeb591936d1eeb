"""Unusual hosts for tests: IPv6 only, a kernel without IPv6, a bare root, little memory, a cable to pull out.

Namespaces of the kernel need root. Without it their tests are skipped, except in CI, where they have to run.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Bringing the interface up assigns both addresses; the request with 0.0.0.0 removes the one of IPv4.
_IPV6_ONLY = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    SIOCSIFFLAGS, SIOCSIFADDR, UP = 0x8914, 0x8916, 0x1
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP))
    address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("0.0.0.0"))
    fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", b"lo", address))
print("ready", flush=True)
sys.stdin.read()
"""

# A filter of system calls: socket(AF_INET6, ...) fails as on a kernel with ipv6.disable=1. BPF instructions
# are code, jumps and operand; the number of the call is at offset 0 and its first argument at 16.
_NO_IPV6 = """
import ctypes, errno, os, platform, socket, struct, sys
LOAD, EQUALS, RETURN, ERROR, ALLOW = 0x20, 0x15, 0x06, 0x50000, 0x7FFF0000
call = {"x86_64": 41, "aarch64": 198}[platform.machine()]
steps = [(LOAD, 0, 0, 0), (EQUALS, 0, 3, call), (LOAD, 0, 0, 16), (EQUALS, 0, 1, socket.AF_INET6)]
steps += [(RETURN, 0, 0, ERROR | errno.EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
libc = ctypes.CDLL(None)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, FILTER, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""

WITHOUT_IPV6 = [sys.executable, "-c", _NO_IPV6]
"""Beginning of a command line that runs a program as on a kernel without IPv6."""

_BARE = """
mount --bind "$1" "$1"
cut -d ' ' -f 5 /proc/self/mountinfo | while read -r place; do
    test "$place" = "$1" || mount -o remount,bind,ro "$place" 2>/dev/null
done
mount -t tmpfs -o ro none /proc
shift
exec "$@"
"""


@functools.cache
def can_isolate() -> bool:
    """Return whether namespaces can be created; in CI they have to."""
    if os.environ.get("CI") == "true":
        return True
    try:
        return subprocess.run(["unshare", "-nm", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_namespaces = pytest.mark.skipif(not can_isolate(), reason="needs root, to create namespaces")


@contextmanager
def ipv6_only(hosts: Path) -> Iterator[list[str]]:
    """Create a network that has ::1 and no other address, in which ``localhost`` is ::1.

    Args:
        hosts: file that takes the place of /etc/hosts.

    Yields:
        the beginning of a command line that runs a program in it.
    """
    hosts.write_text("::1 localhost\n")
    line = ["unshare", "-nm", "sh", "-c", 'mount --bind "$1" /etc/hosts && exec "$2" -c "$3"', "sh"]
    with subprocess.Popen(
        [*line, str(hosts), sys.executable, _IPV6_ONLY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "ready\n"
            yield ["nsenter", "--target", str(holder.pid), "--net", "--mount"]
        finally:
            holder.stdin.close()


def bare_root(folder: Path) -> list[str]:
    """Return the beginning of a command line that runs a program with a read-only root and without /proc.

    Args:
        folder: the only folder that can be written; not even /tmp can.
    """
    return ["unshare", "-m", "sh", "-c", _BARE, "sh", str(folder)]


@contextmanager
def memory_group(limit: int) -> Iterator[list[str]]:
    """Create a control group with a memory limit, of version 2 or 1, whichever this host has.

    Args:
        limit: bytes of memory that its processes may use together.

    Yields:
        the beginning of a command line that runs a program in it.
    """
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    folder = (root / "memory" if version_1 else root) / f"tickertape-test-{os.getpid()}"
    try:
        folder.mkdir()
        name = "memory.limit_in_bytes" if version_1 else "memory.max"
        (folder / name).write_text(str(limit))
    except OSError as error:
        pytest.skip(f"needs a control group with a memory limit: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
    finally:
        folder.rmdir()


@contextmanager
def remote_host(address: str, own: str) -> Iterator[tuple[list[str], Callable[[], None]]]:
    """Create a host that one cable connects to this one.

    Args:
        address: its address, IPv4.
        own: address of this host in the network of the two, a /30.

    Yields:
        the beginning of a command line that runs a program there, and a function that pulls the cable out.
    """
    if shutil.which("ip") is None:
        pytest.skip("needs ip; 'apt-get install iproute2' brings it")
    name = f"tt{os.getpid()}"
    line = ["ip", "netns", "exec", name]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p", "netns", name)
        ip("address", "add", f"{own}/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "address", "add", f"{address}/30", "dev", f"{name}p")
        ip("-n", name, "link", "set", f"{name}p", "up")
        yield line, lambda: ip("link", "set", name, "down")
    finally:
        # Before its namespace, which is deleted in the background: the next one has the same address.
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        ip("netns", "delete", name)

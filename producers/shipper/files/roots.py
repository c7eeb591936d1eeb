"""Roots: the folders whose files may be read, whatever symbolic links lead elsewhere.

Every user who may write to a folder of logs can create links there; the shipper, which may read more, must
not publish the files to which they lead.

Invariants:

1. A file is opened without following links, from the path that was checked, one folder at a time: a link or a
   folder that is exchanged after the check is not followed.
2. Roots are resolved once, at the start: a link that replaces one later leads elsewhere.
3. Only regular files are opened, and none that a kernel interface provides, whatever the roots are.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tickertape.producers.shipper.content.uncompressor import Uncompressor
from tickertape.producers.shipper.files.folder_listings import FolderListings
from tickertape.producers.shipper.files.globs import fixed_folder
from tickertape.producers.shipper.position import Key, key_of

from tickertape.errors import TickertapeError

_KERNEL_FOLDERS: Final = ("/proc", "/sys")

MAX_WARNINGS: Final = 1_000
"""Distinct warnings that are remembered, and hence given."""

_KERNEL_FILESYSTEMS: Final = frozenset((
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl",
    "mqueue", "nfsd", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs",
    "tracefs",
))  # fmt: skip
"""Types of file systems whose files are interfaces of the kernel, wherever they are mounted."""

_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for a folder on the way to a file: with O_PATH, it need not be readable."""

# Without O_NONBLOCK, opening a pipe blocks the event loop until another process opens it for writing.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class PathChanged(TickertapeError):
    """Path that was renamed, replaced or removed since it was last checked."""


class ForbiddenPath(TickertapeError, PermissionError):
    """Path of a file that must not be read."""

    def __init__(self, path: str, reason: str) -> None:
        # Not super(): OSError would take the two for errno and strerror.
        Exception.__init__(self, path, reason)
        self.path = path
        self.reason = reason
        self.errno = errno.EACCES
        self.strerror = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def is_within(path: str, folder: str) -> bool:
    """Return whether a path is a folder, or in it or below it, judging by its text."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class Roots:
    """Folders whose files may be read: that of each pattern for the paths in it, and others for all paths.

    Args:
        patterns: absolute paths and globs; the folder before a wildcard is a root for what is below it.
        others: absolute paths of further folders, to which links may lead.
        warn: called with a line about a path that must not be read, once per path.

    Attributes:
        forbidden: paths that were found since ``begin_scan`` and must not be read.
        listings: listings of folders.
        uncompressor: reader of compressed files.
    """

    def __init__(
        self,
        patterns: Iterable[str],
        others: Iterable[str] = (),
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.forbidden: set[str] = set()
        self.listings = FolderListings()
        self.uncompressor = Uncompressor()
        self._folders = {folder: os.path.realpath(folder) for folder in map(fixed_folder, patterns)}
        self._others = [os.path.realpath(folder) for folder in others]
        self._warn = warn
        self._warned: set[str] = set()
        # Whether the files of a device are interfaces of the kernel.
        self._kernel_devices: dict[int, bool] = {}

    def begin_scan(self) -> set[str]:
        """Start a scan; return the paths that the previous one was not allowed to read."""
        self.uncompressor.begin_scan()
        previous, self.forbidden = self.forbidden, set()
        return previous

    def resolve(self, path: str) -> str:
        """Return the path without links that a path leads to.

        Raises:
            ForbiddenPath: it is in no root.
            OSError: the path does not exist or cannot be accessed.
        """
        target = os.path.realpath(path, strict=True)
        status = os.stat(target)
        if any(is_within(target, folder) for folder in _KERNEL_FOLDERS):
            raise self.forbid(path, f"it leads to {target}, which is an interface of the kernel")
        if stat.S_ISDIR(status.st_mode):
            folder = target
        else:
            self._check_file(path, status)
            folder = os.path.dirname(target)
        if not any(is_within(target, root) for root in (*self._roots_of(path), *self._others)):
            reason = f"it leads to {target}, which is in no folder that may be read; allow it with --root"
            raise self.forbid(path, f"{reason} {folder}")
        return target

    def _roots_of(self, path: str) -> Iterator[str]:
        """Yield the roots of the patterns in whose folders a path is."""
        folder = path
        while folder != (folder := os.path.dirname(folder)):
            if (root := self._folders.get(folder)) is not None:
                yield root

    def folders_of(self, path: str) -> list[str]:
        """Return the folders whose files may be read under the name of a path."""
        return [*self._roots_of(path), *self._others]

    def forbid(self, path: str, reason: str) -> ForbiddenPath:
        """Record that a path must not be read; return the error to raise."""
        self.forbidden.add(path)
        if path not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(path)
            self._warn(f"{path}: not read: {reason}")
        return ForbiddenPath(path, reason)

    def forbid_special(self, path: str) -> ForbiddenPath:
        """Record that a path leads to something other than a regular file; return the error to raise."""
        return self.forbid(path, "it is a device, pipe or socket; only regular files are read")

    def open(self, path: str) -> int:
        """Open a regular file for reading, without following links that were not there when it was checked.

        Raises:
            ForbiddenPath: it must not be read.
            PathChanged: a folder on the way has just been replaced by a link.
            OSError: the file does not exist or cannot be read.
        """
        *folders, name = self.resolve(path).split("/")[1:]
        folder = os.open("/", _FOLDER)
        try:
            for part in folders:
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Opening a device can have an effect, so its type is checked before.
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise PathChanged(path)
            if not stat.S_ISREG(mode):
                raise self.forbid_special(path)
            fd = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PathChanged(path) from None
            raise
        finally:
            os.close(folder)
        try:
            # Again, as the file may have been exchanged; what is open can no longer be.
            self._check_file(path, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_same(self, path: str, key: Key) -> int:
        """Open a file and verify that it is the one that was found before; return its descriptor.

        Raises:
            PathChanged: the path leads to another file by now, or to none.
            OSError: the file cannot be read.
        """
        try:
            fd = self.open(path)
        except FileNotFoundError:
            raise PathChanged(path) from None
        try:
            # Checked after opening: a rename between the scan and the open cannot be excluded, only detected.
            if key_of(os.fstat(fd)) != key:
                raise PathChanged(path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check_file(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise self.forbid_special(path)
        device = status.st_dev
        if device not in self._kernel_devices:
            self._kernel_devices[device] = _filesystem_type(device) in _KERNEL_FILESYSTEMS
        if self._kernel_devices[device]:
            raise self.forbid(path, "it is an interface of the kernel")


def _filesystem_type(device: int) -> str:
    """Return the type of the file system of a device; an empty string if it is not known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                if line.split(" ", 3)[2] == number:
                    return line.partition(" - ")[2].split(" ", 1)[0]
    except (FileNotFoundError, PermissionError):
        pass  # not Linux, or without /proc
    return ""

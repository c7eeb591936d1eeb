"""Globs: expansion into paths, and as regular expressions for the paths of files that no longer exist.

Unlike ``glob.glob``, a folder that cannot be listed is reported, as it must not be taken for an empty one,
and ``**`` lists each folder once, however many symbolic links lead to it.
"""

import errno
import fnmatch
import glob
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from tickertape.producers.shipper.position import Key, key_of

_LASTING: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
)
"""Errors that say something about a path. All others, such as too many open files, say nothing about it."""


def may_pass(error: OSError) -> bool:
    """Return whether an error may pass without a change of the path, so that it is no sign of absence."""
    return error.errno not in _LASTING


def fixed_folder(pattern: str) -> str:
    """Return the last folder before the first wildcard of a path or glob."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def expand(
    pattern: str, report: Callable[[str, OSError], None], follow: Callable[[str], bool] = lambda _: True
) -> list[tuple[str, bool]]:
    """Return the paths that a path or glob matches, in order; a path without wildcards is not checked.

    With each path comes whether a wildcard has matched a symbolic link on it.

    Args:
        pattern: absolute path or glob; ``**`` matches folders recursively.
        report: called with each folder that cannot be listed, and the error.
        follow: returns whether to enter a folder to which a symbolic link leads.
    """
    if not glob.has_magic(pattern):
        return [(pattern, False)]
    folder = fixed_folder(pattern)
    parts = pattern[len(folder) :].strip("/").split("/")
    # ``**/**`` matches the same as ``**``.
    parts = [
        part for part, previous in zip(parts, ["", *parts], strict=False) if (part, previous) != ("**",) * 2
    ]
    return sorted(dict(_Expansion(report, follow).matches(folder, parts, linked=False)).items())


class _Expansion:
    def __init__(self, report: Callable[[str, OSError], None], follow: Callable[[str], bool]) -> None:
        self._report = report
        self._follow = follow
        self._listed: tuple[str, list[tuple[str, bool, bool]]] = ("", [])

    def matches(self, folder: str, parts: list[str], *, linked: bool) -> Iterator[tuple[str, bool]]:
        """Yield what the parts of a glob match in a folder."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            for inner, inner_linked in self._tree(folder, linked):
                yield from self.matches(inner, rest or ["*"], linked=inner_linked)
            return
        for path, is_link in (self._like if glob.has_magic(part) else self._named)(folder, part):
            if not rest:
                yield path, linked or is_link
            elif self._is_folder(path) and (not is_link or self._follow(path)):
                yield from self.matches(path, rest, linked=linked or is_link)

    def _named(self, folder: str, name: str) -> Iterator[tuple[str, bool]]:
        path = os.path.join(folder, name)
        try:
            yield path, stat.S_ISLNK(os.lstat(path).st_mode)
        except OSError as error:
            self._report_unlisted(folder, error)

    def _like(self, folder: str, part: str) -> Iterator[tuple[str, bool]]:
        is_match, hidden = re.compile(fnmatch.translate(part)).match, part.startswith(".")
        prefix = folder.rstrip("/") + "/"
        for name, is_link, _ in self._list(folder):
            if is_match(name) and (hidden or not name.startswith(".")):
                yield prefix + name, is_link

    def _is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            self._report_unlisted(path, error)
            return False

    def _tree(self, top: str, linked: bool) -> Iterator[tuple[str, bool]]:
        """Yield a folder and all folders below it, except hidden ones."""
        # Real folders come first, so that the path of a file does not depend on links to its folder.
        real, links, seen = deque([(top, linked)]), deque[str](), set[Key]()
        while real or links:
            folder, linked = real.popleft() if real else (links.popleft(), True)
            try:
                status = os.stat(folder)
            except OSError as error:
                self._report_unlisted(folder, error)
                continue
            key = key_of(status)
            if key in seen or not stat.S_ISDIR(status.st_mode):
                continue
            seen.add(key)
            yield folder, linked
            for name, is_link, is_folder in self._list(folder):
                if name.startswith(".") or not (is_folder or is_link):
                    continue
                path = os.path.join(folder, name)
                if is_folder:
                    real.append((path, linked))
                elif self._is_folder(path) and self._follow(path):
                    links.append(path)

    def _list(self, folder: str) -> list[tuple[str, bool, bool]]:
        """Return the names in a folder, and whether each is a link and whether it is a folder."""
        # The caller of ``_tree`` has just listed the same folder.
        if self._listed[0] == folder:
            return self._listed[1]
        try:
            with os.scandir(folder) as entries:
                found = [(e.name, e.is_symlink(), e.is_dir(follow_symlinks=False)) for e in entries]
        except OSError as error:
            self._report_unlisted(folder, error)
            return []
        self._listed = (folder, found)
        return found

    def _report_unlisted(self, folder: str, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self._report(folder, error)


def pattern_of(patterns: list[str]) -> re.Pattern[str]:
    """Return one regular expression for all paths that the globs can match."""
    return re.compile("|".join(_expression(pattern) for pattern in patterns))


def _expression(pattern: str) -> str:
    if not glob.has_magic(pattern):
        return re.escape(pattern)
    *folders, name = pattern.split("/")
    texts = ["(?:[^/]+/)*" if folder == "**" else f"{_part_expression(folder)}/" for folder in folders]
    return "".join([*texts, ".*" if name == "**" else _part_expression(name)])


def _part_expression(part: str) -> str:
    # ``fnmatch.translate`` lets a star match slashes, and ``glob.translate`` needs Python 3.13.
    texts = []
    for text in re.split(r"(\*+|\?|\[[^/]+?\])", part):
        if text.startswith("*"):
            texts.append("[^/]*")
        elif text == "?":
            texts.append("[^/]")
        elif text.startswith("[") and text.endswith("]"):
            texts.append(f"[^{text[2:]}" if text.startswith("[!") else text)
        else:
            texts.append(re.escape(text))
    return "".join(texts)

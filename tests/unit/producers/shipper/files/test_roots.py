"""Links and special files: only regular files in the roots are read, whatever is planted, and whenever."""

import os
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tickertape.producers.shipper.files import roots as roots_module
from tickertape.producers.shipper.files.roots import ForbiddenPath, PathChanged, Roots

from tests.support.shipper_desk import Desk

SECRET = "the secret of another folder\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Write a file outside of the folder of logs."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.log").write_text(SECRET * 3)
    return tmp_path / "private" / "secret.log"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a folder with one log."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "good.log").write_text("good\n")
    return tmp_path / "logs"


def shipped(desk: Desk) -> list[str]:
    """Ship until nothing is left; return all lines."""
    desk.settle()
    desk.close()
    return [line for lines in desk.shipped.values() for line in lines]


def link_to_file(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to(secret)


def link_with_dots(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to("../private/secret.log")


def link_to_link(logs: Path, secret: Path) -> None:
    (logs / "hop").symlink_to(secret)
    (logs / "bad.log").symlink_to("hop")


def link_through_folder(logs: Path, secret: Path) -> None:
    (logs / ".hop").symlink_to(secret.parent)
    (logs / "bad.log").symlink_to(".hop/secret.log")


def link_to_root_folder_name(logs: Path, secret: Path) -> None:
    """Create a link to a folder whose name begins with that of the root."""
    (logs.parent / "logs2").mkdir()
    secret.rename(logs.parent / "logs2" / "secret.log")
    (logs / "bad.log").symlink_to(logs.parent / "logs2" / "secret.log")


def link_to_environment(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to("/proc/self/environ")


def link_to_kernel_file(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to("/sys/devices/system/cpu/online")


def link_through_process(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to(f"/proc/{os.getpid()}/root{secret}")


def link_to_device(logs: Path, secret: Path) -> None:
    (logs / "bad.log").symlink_to("/dev/zero")


def pipe(logs: Path, secret: Path) -> None:
    os.mkfifo(logs / "bad.log")


def link_to_pipe(logs: Path, secret: Path) -> None:
    os.mkfifo(logs / "hop")
    (logs / "bad.log").symlink_to("hop")


def unix_socket(logs: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(logs, os.O_PATH)
        server.bind(f"/proc/self/fd/{folder}/bad.log")  # the path may be too long for an address
        os.close(folder)


LINKS = [link_to_file, link_with_dots, link_to_link, link_through_folder, link_to_root_folder_name]
NEVER = [link_to_environment, link_to_kernel_file, link_to_device, pipe, link_to_pipe, unix_socket]
Plant = Callable[[Path, Path], None]


@pytest.mark.parametrize("pattern", ["*.log", "**/*.log", "bad.log"])
@pytest.mark.parametrize("plant", [*LINKS, link_through_process, *NEVER])
def test_nothing_outside_of_the_roots_is_read(plant: Plant, pattern: str, logs: Path, secret: Path) -> None:
    """A link out of the folder and a special file are not read; one line says so, and others are shipped."""
    plant(logs, secret)
    desk = Desk(logs, pattern, "good.log")
    assert shipped(desk) == ["good"]
    assert len(desk.complaints) == desk.discovery.forbidden == 1, desk.complaints
    assert desk.complaints[0].startswith(f"{logs}/bad.log: not read: ")
    assert ("--root" in desk.complaints[0]) == (plant in (*LINKS, link_through_process))


@pytest.mark.parametrize("plant", [link_to_environment, link_to_kernel_file, link_to_device, link_to_pipe])
def test_no_root_allows_an_interface_of_the_kernel(plant: Plant, logs: Path, secret: Path) -> None:
    """Devices, pipes and files of /proc and /sys are not read even if the root is the entire machine."""
    plant(logs, secret)
    desk = Desk(logs, roots=[Path("/")])
    assert shipped(desk) == ["good"]
    assert len(desk.complaints) == 1
    assert "--root" not in desk.complaints[0]


@pytest.mark.parametrize("plant", LINKS)
def test_a_root_allows_links_into_it(plant: Plant, logs: Path, secret: Path) -> None:
    """A link into a folder that the operator names is followed."""
    plant(logs, secret)
    desk = Desk(logs, roots=[(logs / "bad.log").resolve().parent])
    assert sorted(shipped(desk)) == sorted(["good", *[SECRET.strip()] * 3])
    assert desk.complaints == []


def test_a_link_within_the_folder_needs_no_root(logs: Path) -> None:
    """A link within the folder of a pattern is followed, also where a link leads to the folder itself."""
    (logs / "2026").mkdir()
    (logs / "2026" / "run.txt").write_text("run\n")
    (logs / "current.log").symlink_to("2026/run.txt")
    (logs.parent / "alias").symlink_to(logs)
    desk = Desk(logs.parent / "alias")
    assert sorted(shipped(desk)) == ["good", "run"]
    assert desk.complaints == []


@pytest.mark.parametrize("restarted", [False, True])
def test_containers_of_kubernetes(restarted: bool, tmp_path: Path) -> None:
    """/var/log/containers holds links to links into other folders; naming these ships the logs, also after a
    rotation of the target while the shipper was not running.
    """
    containers, pods, docker = tmp_path / "containers", tmp_path / "pods", tmp_path / "docker"
    for folder in (containers, pods / "pod" / "app", docker / "1"):
        folder.mkdir(parents=True)
    (docker / "1" / "1-json.log").write_text("line 1\n")
    (pods / "pod" / "app" / "0.log").symlink_to(docker / "1" / "1-json.log")
    (containers / "app.log").symlink_to(pods / "pod" / "app" / "0.log")
    desk = Desk(containers, roots=[pods, docker])
    desk.ship()
    assert desk.shipped == {"app": ["line 1"]}
    with (docker / "1" / "1-json.log").open("a") as file:
        file.write("line 2\n")
    (docker / "1" / "1-json.log").rename(docker / "1" / "1-json.log.1")
    (docker / "1" / "1-json.log").write_text("line 3\n")
    if restarted:
        desk.kill()
    desk.settle()
    assert desk.shipped == {"app": ["line 1", "line 2", "line 3"]}
    assert desk.complaints == []
    desk.close()
    unnamed = Desk(containers)
    assert shipped(unnamed) == []
    assert f"--root {docker}/1" in unnamed.complaints[0]


@pytest.mark.parametrize("pattern", ["*/*.log", "**/*.log", "*/secret.log"])
def test_a_linked_folder_is_not_entered(pattern: str, logs: Path, secret: Path) -> None:
    """A link to a folder outside is reported once, instead of every file in it."""
    (secret.parent / "more.log").write_text(SECRET)
    (logs / "hop").symlink_to(secret.parent)
    desk = Desk(logs, pattern)
    assert SECRET.strip() not in shipped(desk)
    assert [line.partition(": ")[0] for line in desk.complaints] == [f"{logs}/hop"]
    assert f"--root {secret.parent}" in desk.complaints[0]


def test_a_planted_link_does_not_hide_the_file_that_it_leads_to(logs: Path, secret: Path) -> None:
    """A file that another pattern matches is shipped although a forbidden link to it was found before."""
    link_to_file(logs, secret)
    desk = Desk(logs, "*.log", "../private/*.log")
    desk.discovery.close()
    desk._patterns = [f"{logs}/*.log", str(secret)]
    desk.discovery = desk._start()
    assert len(shipped(desk)) == 4


@pytest.mark.parametrize("glob", ["app.log", "*"])
@pytest.mark.parametrize("restarted", [False, True])
def test_planted_siblings_are_not_read(glob: str, restarted: bool, logs: Path, secret: Path) -> None:
    """A link with the name of a rotated file or of a copy is not read, also after the log was truncated."""
    (logs / "good.log").unlink()
    desk = Desk(logs, glob)
    desk.write("app.log", "line 1\n")
    desk.ship()
    secret.write_text(f"line 1\n{SECRET}")  # it contains everything that was read
    (logs / "app.log.1").symlink_to(secret)
    (logs / "app.log.2").symlink_to("/proc/self/environ")
    if restarted:
        desk.kill()
    desk.truncate("app.log")
    desk.write("app.log", "line 2\n")
    desk.settle()
    desk.delete("app.log")
    assert shipped(desk) == ["line 1", "line 2"]


class Swap:
    """Action that runs immediately before the n-th system call of opening a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], None]) -> None:
        self.left = at
        self._action = action
        for name in ("open", "stat", "lstat", "fstat", "readlink"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == -1:
                self._action()
            return call(*arguments, **options)

        return counted


@pytest.mark.parametrize("level", ["file", "folder", "parent"])
@pytest.mark.parametrize("linked", [False, True])
def test_nothing_that_is_swapped_in_is_read(level: str, linked: bool, tmp_path: Path) -> None:
    """Before any system call, a file, its folder or the parent may be replaced by a link to another one."""
    for number in count():
        top = tmp_path / str(number)
        for name in ("root", "other"):
            (top / name / "a" / "b").mkdir(parents=True)
            (top / name / "a" / "b" / "app.log").write_text(name)
        path = top / "root" / "a" / "b" / "app.log"
        if linked:
            (top / "root" / "link.log").symlink_to("a/b/app.log")
        victim = {"file": path, "folder": path.parent, "parent": path.parent.parent}[level]

        def swap(victim: Path = victim, top: Path = top) -> None:
            victim.rename(top / "moved")
            victim.symlink_to(top / "other" / victim.relative_to(top / "root"))

        roots = Roots([f"{top}/root/**"])
        with pytest.MonkeyPatch.context() as patched:
            hook = Swap(patched, number, swap)
            try:
                fd = roots.open(str(top / "root" / "link.log") if linked else str(path))
            except (PathChanged, ForbiddenPath, FileNotFoundError):
                fd = None
        if fd is not None:
            assert os.read(fd, 100) == b"root"
            os.close(fd)
        if hook.left >= 0:
            break  # every call was preceded by a swap
    assert number > 5


def test_a_root_that_is_replaced_by_a_link_is_not_followed(logs: Path, secret: Path) -> None:
    """Roots are resolved at the start, so that a user who can rename them cannot redirect the shipper."""
    desk = Desk(logs)
    desk.ship()
    logs.rename(logs.parent / "moved")
    logs.symlink_to(secret.parent)
    assert shipped(desk) == ["good"]
    assert desk.discovery.forbidden == 1


def test_a_file_system_of_the_kernel_is_recognized_wherever_it_is_mounted() -> None:
    """/proc may be mounted elsewhere, as in a container with the folders of its host."""
    status = os.stat("/proc/self/environ")
    assert roots_module._filesystem_type(status.st_dev) == "proc"
    roots = Roots(["/host/*"])
    with pytest.raises(ForbiddenPath):
        roots._check_file("/host/proc/1/environ", status)
    roots._check_file(__file__, os.stat(__file__))
    assert roots.forbidden == {"/host/proc/1/environ"}


def test_a_forbidden_path_is_read_once_it_is_replaced(logs: Path, secret: Path) -> None:
    """A link that is replaced by a file is read, and no longer counted."""
    link_to_file(logs, secret)
    desk = Desk(logs)
    desk.ship()
    assert desk.discovery.forbidden == 1
    (logs / "bad.log").unlink()
    desk.write("bad.log", "fine\n")
    desk.ship(1.0)
    assert desk.shipped["bad"] == ["fine"]
    assert desk.discovery.forbidden == 0
    desk.close()

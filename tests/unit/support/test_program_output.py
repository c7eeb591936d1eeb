"""The lines of a child process: complete at each look, in order, and whole."""

import os
from typing import TextIO

import pytest

from tests.support.programs.program_output import ProgramOutput

LINES = 500


@pytest.fixture
def pipe() -> tuple[int, TextIO]:
    """Return a pipe's write end, and its read end as a child's stream."""
    read, write = os.pipe()
    return write, os.fdopen(read)


def test_a_look_sees_what_was_written_before_it(pipe: tuple[int, TextIO]) -> None:
    """Lines written before a look are returned, however late the reading thread runs."""
    write, stream = pipe
    output = ProgramOutput(stream)
    for number in range(LINES):
        os.write(write, f"{number}\n".encode())
        assert output.lines == [f"{each}\n" for each in range(number + 1)]
    os.close(write)
    output.close()


def test_lines_are_whole(pipe: tuple[int, TextIO]) -> None:
    """A line counts when it is complete, or when the stream ends; bytes that are no UTF-8 are shown."""
    write, stream = pipe
    output = ProgramOutput(stream)
    os.write(write, b"one\ntw")
    assert output.lines == ["one\n"]
    os.write(write, b"o\n\xff\nthr")
    assert output.lines == ["one\n", "two\n", "\\xff\n"]
    os.close(write)
    output.close()
    assert output.lines[-1] == "thr"

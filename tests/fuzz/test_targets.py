"""Each fuzz target with its kept corpus; ``make fuzz`` looks for new inputs."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS, fuzz_target
from tests.fuzz.targets import TARGETS, load, transport
from tests.support.paths import ROOT

CPU_SECONDS = 2.0
"""Maximum CPU time of one input, which has at most 4 KiB."""

MOST_BYTES = 200_000
"""Size of the corpus, which every clone contains."""


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    transport.close()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_violates_no_invariant(name: str) -> None:
    """No input of the corpus violates the invariant of its target, and none is slow."""
    paths = sorted((CORPUS / name).iterdir())
    assert paths
    target = load(name)
    for path in paths:
        began = time.thread_time()
        target(path.read_bytes())
        assert time.thread_time() - began < CPU_SECONDS, path.name


def test_the_corpus_has_a_folder_for_each_target_and_is_small() -> None:
    """There is no folder without a target, and the corpus stays small."""
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES


def test_coverage_guides_the_fuzzer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From an empty corpus, atheris finds inputs that reach further into a parser, and adds them."""
    pytest.importorskip("atheris")
    (tmp_path / "corpus" / "patterns").mkdir(parents=True)
    monkeypatch.setattr("tests.fuzz.__main__.CORPUS", tmp_path / "corpus")
    monkeypatch.setattr("tests.fuzz.__main__.BUILD", tmp_path / "found")
    assert fuzz_target("patterns", 1, keep=True)
    assert len(list((tmp_path / "corpus" / "patterns").iterdir())) > 3


def test_a_finding_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An input that violates an invariant fails the run, and is kept."""
    pytest.importorskip("atheris")
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import tickertape.contracts.cursors as c\nreal = c.parse_cursor\n"
        "c.parse_cursor = lambda text: real(text)._replace(epoch='x')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setattr("tests.fuzz.__main__.BUILD", tmp_path / "found")
    assert not fuzz_target("cursor", 20, keep=False)
    assert list((tmp_path / "found" / "cursor").glob("crash-*"))

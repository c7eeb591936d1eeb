"""The examples of the README in JavaScript and TypeScript, checked by the compiler."""

import subprocess
from pathlib import Path

import pytest

from tests.support.browser.browser_desk import missing
from tests.support.documents.markdown import blocks
from tests.support.paths import ROOT

NEXT = ROOT / "tests" / "e2e" / "nextjs"
EXAMPLES = [block for block in blocks("README.md") if block.language in ("js", "ts", "tsx")]
OPTIONS = (
    "--noEmit",
    "--strict",
    "--noImplicitAny",
    "false",
    "--skipLibCheck",
    "--jsx",
    "preserve",
    "--target",
    "es2022",
)
MODULES = ("--module", "esnext", "--moduleResolution", "bundler", "--allowJs", "--checkJs")


def test_the_examples_compile(tmp_path: Path) -> None:
    """Each example is valid for the types of the package, as an app installs it."""
    compiler = NEXT / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        missing("needs the packages of tests/e2e/nextjs; 'make test' installs them")
    assert {block.language for block in EXAMPLES} == {"js", "ts", "tsx"}
    (tmp_path / "node_modules").symlink_to(NEXT / "node_modules")
    files = [tmp_path / f"example{number}.{block.language}" for number, block in enumerate(EXAMPLES)]
    for block, file in zip(EXAMPLES, files, strict=True):
        file.write_text(block.text)
    done = subprocess.run(
        [compiler, *OPTIONS, *MODULES, *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr)

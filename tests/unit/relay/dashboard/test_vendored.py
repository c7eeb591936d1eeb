"""What the dashboard uses of others: one version, at every place that names it.

That the files are those of the package is for `npm run check` to say, which has the package.
"""

import json
import re
import tomllib
from typing import Final

from tests.support.paths import ROOT

DASHBOARD: Final = ROOT / "relay" / "dashboard"
TYPESCRIPT: Final = ROOT / "contracts" / "typescript"


def test_the_copy_is_of_the_version_that_is_locked() -> None:
    """An exact one, in the list of dependencies, in the lock, and in the file."""
    wanted = json.loads((TYPESCRIPT / "package.json").read_text())["devDependencies"]["uplot"]
    locked = json.loads((TYPESCRIPT / "package-lock.json").read_text())["packages"]["node_modules/uplot"]
    script = (DASHBOARD / "vendor" / "uPlot.iife.min.js").read_text()
    found = re.match(r"/\*! \S+ \(v(\S+)\) \*/", script)
    assert found
    assert wanted == locked["version"] == found[1]
    assert "resolved" not in locked


def test_the_copy_comes_with_its_licence_and_is_in_the_wheel() -> None:
    """Who gets the file gets the terms under which it may be handed on."""
    assert "MIT License" in (DASHBOARD / "vendor" / "uPlot.LICENSE.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = project["tool"]["setuptools"]["package-data"]["tickertape.relay"]
    named = {path for pattern in packed for path in (ROOT / "relay").glob(pattern)}
    assert {path for path in DASHBOARD.rglob("*") if path.is_file()} <= named

"""Third-party files of the dashboard have the same version everywhere.

``npm run check`` compares the files with the package itself.
"""

import json
import re
import tomllib
from typing import Final

from tests.support.paths import ROOT

DASHBOARD: Final = ROOT / "relay" / "dashboard"
TYPESCRIPT: Final = ROOT / "contracts" / "typescript"


def test_the_script_has_the_locked_version() -> None:
    """package.json, the lock file and the script name the same exact version."""
    required = json.loads((TYPESCRIPT / "package.json").read_text())["devDependencies"]["uplot"]
    locked = json.loads((TYPESCRIPT / "package-lock.json").read_text())["packages"]["node_modules/uplot"]
    script = (DASHBOARD / "vendor" / "uPlot.iife.min.js").read_text()
    version = re.match(r"/\*! \S+ \(v(\S+)\) \*/", script)
    assert version
    assert required == locked["version"] == version[1]
    assert "resolved" not in locked


def test_the_script_is_packaged_with_its_licence() -> None:
    """The wheel contains the script and its licence."""
    assert "MIT License" in (DASHBOARD / "vendor" / "uPlot.LICENSE.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["tickertape.relay"]
    included = {path for pattern in patterns for path in (ROOT / "relay").glob(pattern)}
    assert {path for path in DASHBOARD.rglob("*") if path.is_file()} <= included

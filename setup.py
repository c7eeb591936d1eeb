"""Lay the folders at the root under one import package: ``tickertape.relay`` is ``relay/``, and so on.

Everything else that packaging needs stands in pyproject.toml, which cannot say this. A wheel also contains
its software bill of materials (PEP 770), for which setuptools has no setting.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

FOLDERS = {
    "tickertape": "tickertape",
    "tickertape.relay": "relay",
    "tickertape.producers": "producers",
    "tickertape.contracts": "contracts",
}


class WheelWithSbom(bdist_wheel):
    """Build of a wheel whose metadata contains the bill of materials."""

    def egg2dist(self, egginfo_path, distinfo_path):
        """Write the metadata of the wheel, and the bill of materials beside it."""
        super().egg2dist(egginfo_path, distinfo_path)
        sboms = Path(distinfo_path, "sboms")
        sboms.mkdir()
        generate = runpy.run_path(str(Path(__file__).parent / "deploy" / "sbom.py"))["sbom"]
        (sboms / "tickertape.cdx.json").write_bytes(generate())


setup(
    cmdclass={"bdist_wheel": WheelWithSbom},
    package_dir=FOLDERS,
    packages=[
        ".".join((package, below)) if below else package
        for package, folder in FOLDERS.items()
        for below in ("", *find_packages(folder))
    ],
)

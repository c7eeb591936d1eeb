"""Lay the folders at the root under one import package: ``tickertape.relay`` is ``relay/``, and so on.

Everything else that packaging needs stands in pyproject.toml, which cannot say this.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "tickertape": "tickertape",
    "tickertape.relay": "relay",
    "tickertape.producers": "producers",
    "tickertape.contracts": "contracts",
}

setup(
    package_dir=FOLDERS,
    packages=[
        ".".join((package, below)) if below else package
        for package, folder in FOLDERS.items()
        for below in ("", *find_packages(folder))
    ],
)

"""The bill of materials is valid CycloneDX, complete, the same for the same lock, and in wheel and image."""

import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cyclonedx.schema
import pytest
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.support.deploy_options import DEPLOY
from tests.support.paths import ROOT
from tests.unit.deploy.test_deploy_image import tracked
from tests.unit.test_locks import LOCKS, pins

SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"
sbom = runpy.run_path(str(DEPLOY / "sbom.py"))["sbom"]


def validator() -> Draft7Validator:
    """Return the validator of CycloneDX 1.6."""
    registry = Registry[Any]().with_resources(
        (f"http://cyclonedx.org/schema/{name}", DRAFT7.create_resource(read(name)))
        for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    )
    return Draft7Validator(read("bom-1.6.SNAPSHOT.schema.json"), registry=registry)


def read(name: str) -> Any:
    """Return a schema of CycloneDX."""
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def test_it_is_valid() -> None:
    """It satisfies the schema; a component without a name does not."""
    document = json.loads(sbom())
    assert list(validator().iter_errors(document)) == []
    del document["components"][0]["name"]
    assert list(validator().iter_errors(document))


def test_it_lists_every_locked_package() -> None:
    """Each locked package is listed with version and hashes, and required by another or by the project."""
    document = json.loads(sbom())
    assert {one["name"]: one["version"] for one in document["components"]} == pins(LOCKS["deploy"])
    assert all(one["hashes"] for one in document["components"])
    edges = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    needed = {ref for refs in edges.values() for ref in refs}
    assert needed == {one["bom-ref"] for one in document["components"]}
    root = document["metadata"]["component"]
    assert any(ref.startswith("pkg:pypi/orjson@") for ref in edges[root["bom-ref"]])


def test_it_depends_on_the_lock_alone(tmp_path: Path) -> None:
    """The same lock yields the same bytes, and another one another serial number; an odd line is an error."""
    assert sbom() == sbom()
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lock = LOCKS["deploy"].read_text()
    (tmp_path / "deploy" / "requirements.txt").write_text(lock.replace("orjson==", "orjson==9."))
    assert json.loads(sbom(tmp_path))["serialNumber"] != json.loads(sbom())["serialNumber"]
    (tmp_path / "deploy" / "requirements.txt").write_text(f"{lock}-e .\n")
    with pytest.raises(ValueError, match="-e"):
        sbom(tmp_path)


def test_a_wheel_contains_it(tmp_path: Path) -> None:
    """A wheel has it in its metadata, listed in RECORD; a source distribution has what it is made of."""
    source = tmp_path / "source"
    folders = ("tickertape", "relay", "producers", "contracts", "deploy")
    tops = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
    for name in tracked(*folders, *tops):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    command = [sys.executable, "-c", build]
    sdist, wheel = (
        subprocess.check_output([*command, kind, str(tmp_path)], cwd=source, text=True).splitlines()[-1]
        for kind in ("build_sdist", "build_wheel")
    )
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        (name,) = (one for one in archive.namelist() if "/sboms/" in one)
        assert archive.read(name) == sbom()
        (record,) = (one for one in archive.namelist() if one.endswith(".dist-info/RECORD"))
        assert f"{name},sha256=" in archive.read(record).decode()
    listed = subprocess.run(["tar", "tzf", str(tmp_path / sdist)], capture_output=True, text=True, check=True)
    assert {"deploy/sbom.py", "deploy/requirements.txt"} <= {
        line.partition("/")[2] for line in listed.stdout.splitlines()
    }

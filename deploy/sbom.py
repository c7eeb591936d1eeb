"""Software bill of materials (CycloneDX 1.6) of the package and its locked dependencies: ``make sbom``.

It is derived from ``pyproject.toml`` and ``requirements.txt`` alone: the same lock yields the same bytes. The
build of a wheel writes it to ``.dist-info/sboms`` (PEP 770), and that of the image to
``/opt/tickertape/sbom.cdx.json``.
"""

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_PIN = re.compile(r"([a-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==(\S+)(?: ; ([^\\]+))? \\")
_HASH = re.compile(r" +--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r" +# +(?:via )?([\w.-]+)")


def sbom(root: Path = ROOT) -> bytes:
    """Return the bill of materials as JSON.

    Args:
        root: folder of the project.

    Raises:
        ValueError: the lock has a line of an unknown form.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    components, parents = _read_lock((root / "deploy" / "requirements.txt").read_text(encoding="utf-8"))
    name, version = project["name"], project["version"]
    refs = {component["name"]: component["bom-ref"] for component in components}
    refs[name] = f"pkg:pypi/{name}@{version}"
    children: dict[str, list[str]] = {ref: [] for ref in refs.values()}
    for child, needed_by in parents.items():
        for parent in needed_by:
            children[refs[parent]].append(refs[child])
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": refs[name],
                "name": name,
                "version": version,
                "purl": refs[name],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(needed)} for ref, needed in sorted(children.items())
        ],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document))}"
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _read_lock(text: str) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Return the components of a lock, and the packages that require each."""
    components: list[dict[str, Any]] = []
    parents: dict[str, list[str]] = {}
    for line in text.splitlines():
        if pin := _PIN.fullmatch(line):
            name, version, marker = pin.groups()
            ref = f"pkg:pypi/{name}@{version}"
            component: dict[str, Any] = {
                "type": "library",
                "bom-ref": ref,
                "name": name,
                "version": version,
                "purl": ref,
                "hashes": [],
            }
            if marker:
                component["properties"] = [{"name": "tickertape:marker", "value": marker.strip()}]
            components.append(component)
            parents[name] = []
        elif found := _HASH.match(line):
            components[-1]["hashes"].append({"alg": "SHA-256", "content": found[1]})
        elif found := _VIA.match(line):
            if found[1] != "via":
                parents[components[-1]["name"]].append(found[1])
        elif line.strip():
            raise ValueError(f"line of an unknown form in the lock: {line!r}")
    return components, parents


if __name__ == "__main__":
    sys.stdout.buffer.write(sbom())  # noqa: TID251 - the only output of a program that strangers do not reach

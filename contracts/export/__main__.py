"""Export of the contract to other languages: JSON Schema, AsyncAPI and TypeScript.

``python -m tickertape.contracts.export`` writes the files; with ``--check`` it names those that are stale and
exits with 1. The output depends only on the models, so that every difference is a change of the contract.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tickertape.contracts.export.asyncapi import generate_asyncapi
from tickertape.contracts.export.json_schema import generate_schemas
from tickertape.contracts.export.typescript import generate_typescript

ROOT = Path(__file__).parents[1]
"""Folder of the contract, below which the files are written."""


def generate_files() -> dict[str, str]:
    """Return the text of each generated file, keyed by its path relative to the folder."""
    documents: dict[str, dict[str, Any]] = {
        f"{name}.schema": document for name, document in generate_schemas().items()
    }
    documents["asyncapi"] = generate_asyncapi()
    texts = {
        f"schema/{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }
    return {**texts, "typescript/src/types.ts": generate_typescript()}


def write_files(folder: Path = ROOT) -> list[Path]:
    """Write the files below a folder, and return the paths of those that changed."""
    changed = []
    for name, text in generate_files().items():
        path = folder / name
        if _read(path) != text.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            changed.append(path)
    return changed


def find_stale(folder: Path = ROOT) -> list[str]:
    """Return the names of the files below a folder that are missing or differ from the models."""
    return [name for name, text in generate_files().items() if _read(folder / name) != text.encode()]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or report stale files with ``--check``; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tickertape.contracts.export",
        description="Generate JSON Schema, AsyncAPI and TypeScript files from the contract.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    if parser.parse_args(arguments).check:
        names = find_stale(ROOT)
        for name in names:
            print(f"contracts/{name} is stale; run 'python -m tickertape.contracts.export'", file=sys.stderr)
        return 1 if names else 0
    for path in write_files(ROOT):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = [
    "ROOT",
    "find_stale",
    "generate_asyncapi",
    "generate_files",
    "generate_schemas",
    "generate_typescript",
    "main",
    "write_files",
]

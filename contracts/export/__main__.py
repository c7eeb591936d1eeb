"""Writes the contract for other languages: JSON Schema, AsyncAPI and TypeScript.

``python -m tickertape.contracts.export`` writes the files; ``--check`` exits 1 and names those that are
stale. What is written depends on the models alone, so that a difference is always a change of the contract.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tickertape.contracts.export.asyncapi import asyncapi
from tickertape.contracts.export.json_schema import schemas
from tickertape.contracts.export.typescript import typescript

HOME = Path(__file__).parents[1]
"""Where the files are kept."""


def files() -> dict[str, str]:
    """Return the text of each generated file by its path below the folder."""
    documents: dict[str, dict[str, Any]] = {
        f"{name}.schema": document for name, document in schemas().items()
    }
    documents["asyncapi"] = asyncapi()
    texts = {
        f"schema/{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }
    return {**texts, "typescript/src/types.ts": typescript()}


def write(folder: Path = HOME) -> list[Path]:
    """Write the files below a folder; return those that changed."""
    changed = []
    for name, text in files().items():
        path = folder / name
        if _read(path) != text.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            changed.append(path)
    return changed


def stale(folder: Path = HOME) -> list[str]:
    """Name the files below a folder that are absent or not what the models say."""
    return [name for name, text in files().items() if _read(folder / name) != text.encode()]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with ``--check`` tell which are stale; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tickertape.contracts.export", description="Write the contract's files."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    if parser.parse_args(arguments).check:
        names = stale(HOME)
        for name in names:
            print(f"contracts/{name} is stale; run 'python -m tickertape.contracts.export'", file=sys.stderr)
        return 1 if names else 0
    for path in write(HOME):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["HOME", "asyncapi", "files", "main", "schemas", "stale", "typescript", "write"]

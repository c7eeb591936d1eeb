"""Paths in this repository."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The root of the repository."""

__all__ = ["ROOT"]

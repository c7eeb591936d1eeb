"""Where the files of this repository are."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The root of the repository."""

__all__ = ["ROOT"]

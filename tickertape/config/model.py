"""Model of the settings of a command, from which its options, variables, file keys and help are derived.

Invariants:

1. A setting has one name. Its option is ``--some-name``, its variable ``TICKERTAPE_SOME_NAME``, and its key
   in a configuration file and its credential are ``some_name``.
2. A name that is ambiguous among commands (``AMBIGUOUS``) exists only with the name of a command before it:
   as ``TICKERTAPE_SERVE_HOST``, and as ``host`` in the table ``[serve]``. Other names may have it, to apply
   to one command only.
"""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

COMMANDS: Final = (
    "demo", "serve", "monitor", "ship", "tail", "report", "publish", "streams", "token", "check", "schema",
)  # fmt: skip
"""Names of the commands, which are also those of the tables of a configuration file."""

AMBIGUOUS: Final = {
    "audit": ("serve", "monitor", "streams"),
    "host": ("serve", "ship"),
    "level": ("ship", "tail"),
    "subjects": ("serve", "tail"),
}
"""Names that mean different things to commands, and these commands."""


class Mark(Enum):
    """Mark in the annotation of a field."""

    POSITIONAL = 1
    """Argument without an option's name."""
    COMMAS = 2
    """Text that is a list separated by commas; several values are joined."""
    WHOLE = 3
    """List of texts that may contain commas, which therefore do not separate them."""


T = TypeVar("T")
Positional = Annotated[T, Mark.POSITIONAL]


class Settings(BaseModel):
    """Base class of the settings of a command; ``resolve.load`` reads them.

    Attributes:
        section: name of the command that the fields of a subclass belong to; empty for shared ones.
        only_options: names of the fields that can be set as options only.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )
    section: ClassVar[str] = ""
    only_options: ClassVar[frozenset[str]] = frozenset()

    config: Path | None = Field(None, description="TOML file with settings; see the README")


class Setting:
    """A field of a settings model.

    Args:
        model: settings model.
        attribute: name of the field in Python.
        field: type, default and description of the field.

    Attributes:
        name: name of the setting.
        section: command that the setting belongs to.
        type: type of a value, or of each element of a list.
        is_list: whether the field is a list.
        marks: marks in the annotation.
    """

    def __init__(self, model: type[Settings], attribute: str, field: FieldInfo) -> None:
        self.attribute = attribute
        self.name = field.alias or attribute
        self.section = _section(model, attribute)
        self.field = field
        self.type, self.is_list = _value_type(field.annotation)
        self.marks = set(_marks(field.annotation)) | {
            mark for mark in field.metadata if isinstance(mark, Mark)
        }
        self._only_option = attribute in model.only_options
        self._shadowed = f"{self.section}_{self.name}" in model.model_fields

    @property
    def positional(self) -> bool:
        """Whether it is an argument without an option's name."""
        return Mark.POSITIONAL in self.marks

    @property
    def repeatable(self) -> bool:
        """Whether the option may be repeated."""
        return self.is_list or Mark.COMMAS in self.marks

    @property
    def flag(self) -> bool:
        """Whether the option takes no value."""
        return self.type is bool

    @property
    def secret(self) -> bool:
        """Whether no output may show the value."""
        return self.type is SecretStr

    @property
    def option(self) -> str:
        """Name of the option, or of the argument."""
        return self.name.upper() if self.positional else f"--{self.name.replace('_', '-')}"

    @property
    def configurable(self) -> bool:
        """Whether it has a variable; actions and single arguments have none, but the paths of files do."""
        return not self._only_option and (not self.positional or self.is_list)

    @property
    def in_files(self) -> bool:
        """Whether it can be set in a configuration file."""
        return self.configurable and self.name != "config"

    @property
    def keys(self) -> list[str]:
        """Names under which the setting is looked up, the most specific one first.

        ``streams_max_bytes`` is a setting itself, and not the ``max_bytes`` of ``streams``.
        """
        if not self.configurable:
            return []
        qualified = [f"{self.section}_{self.name}"] if self.section and not self._shadowed else []
        return qualified if self.name in AMBIGUOUS else [*qualified, self.name]


def iter_settings(model: type[Settings]) -> Iterator[Setting]:
    """Yield the settings of a model in the order of its fields."""
    for name, field in model.model_fields.items():
        yield Setting(model, name, field)


def _section(model: type[Settings], attribute: str) -> str:
    """Return the section of the most basic class that has both a section and the field."""
    return next(
        (
            base.section
            for base in reversed(model.__mro__)
            if issubclass(base, Settings) and base.section and attribute in base.model_fields
        ),
        "",
    )


def _value_type(annotation: Any) -> tuple[Any, bool]:
    """Return the bare type of a value, and whether the field is a list."""
    if get_origin(annotation) is Annotated:
        return _value_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _value_type(next(member for member in get_args(annotation) if member is not type(None)))
    if get_origin(annotation) is list:
        return _value_type(get_args(annotation)[0])[0], True
    return annotation, False


def _marks(annotation: Any) -> Iterator[Mark]:
    for part in get_args(annotation):
        if isinstance(part, Mark):
            yield part
        else:
            yield from _marks(part)

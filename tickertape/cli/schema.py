"""``tickertape schema``: print the contract in a machine-readable format."""

from typing import ClassVar, Literal

import orjson
from pydantic import Field

from tickertape.config.model import Positional, Settings
from tickertape.contracts.export import __main__ as export
from tickertape.process.console import print_json, print_lines


class SchemaSettings(Settings):
    """Settings of ``tickertape schema``."""

    section: ClassVar[str] = "schema"

    form: Positional[Literal["events", "messages", "audit", "asyncapi", "typescript"]] = Field(
        description="format: JSON Schema of events, messages or audit records, AsyncAPI, or TypeScript"
    )


def run(settings: SchemaSettings) -> int:
    """Print the contract.

    Returns:
        0.
    """
    if settings.form == "typescript":
        print_lines(export.generate_typescript())
        return 0
    document = (
        export.generate_asyncapi()
        if settings.form == "asyncapi"
        else export.generate_schemas()[settings.form]
    )
    print_json(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return 0

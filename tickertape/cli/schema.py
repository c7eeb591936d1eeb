"""``tickertape schema``: print the contract in a machine-readable format."""

from typing import Literal

import orjson
from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from tickertape.contracts.export import __main__ as export
from tickertape.process.console import print_json, print_lines


class SchemaSettings(BaseSettings):
    """Options of ``tickertape schema``."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_SCHEMA_", frozen=True, extra="ignore")

    form: CliPositionalArg[Literal["events", "messages", "audit", "asyncapi", "typescript"]] = Field(
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

"""The NATS options that every program has."""

from dataclasses import fields

import pytest

from tickertape.nats.credentials import Access
from tickertape.nats.settings import NatsSettings

GIVEN = [
    {"ca": "ca.pem"},
    {"cert": "cert.pem", "key": "key.pem"},
    {"creds": "user.creds"},
    {"nkey_file": "user.nk"},
    {"user": "web", "password": "hunter2"},
    {"user": "web", "password_file": "password"},
    {"token": "s3cr3t"},
    {"token_file": "token"},
    {"inbox_prefix": "_INBOX_web"},
]
"""Options that belong together; each option is in one of these groups."""


@pytest.mark.parametrize("given", GIVEN, ids=" ".join)
def test_an_option_reaches_the_connection(given: dict[str, str]) -> None:
    """Each option is passed to the connection."""
    access = NatsSettings.model_validate({f"nats_{name}": value for name, value in given.items()}).access()
    assert {name: str(getattr(access, name)) for name in given} == given


def test_every_option_is_tried() -> None:
    """A new option must be listed above, and be an option and an argument of the SDK."""
    options = {name.removeprefix("nats_") for name in NatsSettings.model_fields if name.startswith("nats_")}
    assert options - {"url"} == {field.name for field in fields(Access)} == {*set().union(*GIVEN)}

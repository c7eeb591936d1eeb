"""Validators of settings."""

from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from tickertape.validation import Port, checked_by, describe_first_error, find_misspelt_variable


def test_a_function_becomes_a_check() -> None:
    """The validator keeps the value unchanged and reports the function's error."""
    number = TypeAdapter(Annotated[str, checked_by(int)])
    assert number.validate_python(" 7") == " 7"
    with pytest.raises(ValidationError, match="invalid literal for int"):
        number.validate_python("x")


@pytest.mark.parametrize(("port", "good"), [(0, True), (65_535, True), (-1, False), (65_536, False)])
def test_ports(port: int, good: bool) -> None:
    """Port 0 lets the system choose."""
    adapter = TypeAdapter[int](Port)
    if good:
        assert adapter.validate_python(port) == port
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(port)


def test_a_fault_names_its_field() -> None:
    """The error names the field by its path and does not show the input."""

    class Inner(BaseModel):
        ports: list[int]

    class Outer(BaseModel):
        inner: Inner

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"ports": [1, "hunter2"]}})
    assert describe_first_error(caught.value).startswith("inner.ports.1: Input should be a valid integer")
    assert "hunter2" not in describe_first_error(caught.value)


KNOWN = {"AUTH", "JWT_AUDIENCE", "JWT_REVOKED_FILE", "LOG_LEVEL", "HOST", "PORT"}


@pytest.mark.parametrize(
    ("variable", "closest"),
    [
        ("TICKERTAPE_JWT_AUDIANCE", "TICKERTAPE_JWT_AUDIENCE"),
        ("TICKERTAPE_JWT_REVOKED", "TICKERTAPE_JWT_REVOKED_FILE"),
        ("TICKERTAPE_JWT_REVOCED_FILE", "TICKERTAPE_JWT_REVOKED_FILE"),
        ("TICKERTAPE__AUTH", "TICKERTAPE_AUTH"),
        ("TICKERTAPE_AUTH_", "TICKERTAPE_AUTH"),
        ("TICKERTAPEAUTH", "TICKERTAPE_AUTH"),
        ("Tickertape_Auhth", "TICKERTAPE_AUTH"),
        ("tickertape-auth", "TICKERTAPE_AUTH"),
        ("TICKERTAP_AUTH", "TICKERTAPE_AUTH"),
        ("TICKER_TAPE_JWT_AUDIENCE", "TICKERTAPE_JWT_AUDIENCE"),
        ("Tikertape_Jwt_Revoked_File", "TICKERTAPE_JWT_REVOKED_FILE"),
        (" TICKERTAPE_AUTH", "TICKERTAPE_AUTH"),
    ],
)
@pytest.mark.parametrize("resembling", [True, False])
def test_a_misspelt_variable_is_found(variable: str, closest: str, resembling: bool) -> None:
    """A misspelt variable is named with the setting that it resembles."""
    variables = ("PATH", "TICKERTAPE_AUTH", variable)
    assert find_misspelt_variable(variables, KNOWN, resembling=resembling) == (
        f"environment variable {variable} is not a setting, but resembles {closest}"
    )


def test_other_variables_are_accepted() -> None:
    """Settings in any case, variables of recovery commands, and links of Kubernetes services are accepted."""
    variables = [
        "PATH", "TICKER", "tickertape_auth", "Tickertape_Jwt_Audience", "TICKERTAPE_GATEWAY_ID",
        "TICKERTAPE_SERVICE_HOST", "TICKERTAPE_SERVICE_PORT_FEED", "TICKERTAPE_PORT_80_TCP_ADDR",
        "TICKERTAPE_METRICS_PORT", "TICKERTAPE_METRICS_PORT_9464_TCP", "TICKER_TAPE_PORT", "TICKER_AUTH",
    ]  # fmt: skip
    assert find_misspelt_variable(variables, KNOWN) is None
    assert find_misspelt_variable(["TICKERTAPE_COLOUR"], KNOWN, resembling=True) is None
    assert find_misspelt_variable(["TICKERTAPE_COLOUR"], KNOWN) is not None

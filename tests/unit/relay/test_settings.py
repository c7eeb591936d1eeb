"""Settings of the relay."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.relay.settings import ServeSettings, data_home

from tickertape.config.resolve import load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)


def settings(**values: Any) -> ServeSettings:
    """Return settings with these values."""
    return ServeSettings(**values)


def test_defaults_are_those_of_the_protocol() -> None:
    """A relay without options listens on this machine only and has the documented defaults."""
    found = settings()
    assert (found.host, found.port, found.ops_host, found.ops_port) == ("127.0.0.1", 8080, "127.0.0.1", 9464)
    assert (found.client_rate, found.max_catch_up, found.nats_port) == (100.0, 1_000, 4222)
    assert found.nats_url is None
    assert found.patterns() == STREAM_SUBJECTS


def test_keywords_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option can be set in the environment, and keywords take precedence."""
    monkeypatch.setenv("TICKERTAPE_CLIENT_RATE", "7")
    monkeypatch.setenv("TICKERTAPE_NATS_URL", "nats://a:4222")
    assert load(ServeSettings, {}).client_rate == 7.0
    assert load(ServeSettings, {}).nats_url == "nats://a:4222"
    assert load(ServeSettings, {"client_rate": 8}).client_rate == 8.0


@pytest.mark.parametrize(
    ("subjects", "patterns"),
    [
        (">", STREAM_SUBJECTS),
        ("log.>, >", STREAM_SUBJECTS),
        ("log.error.x, gateway.>", ("gateway.>", "log.error.x")),
        ("log.>,log.error.>,log.>", ("log.>",)),
        ("log.*.x,log.error.>", ("log.*.x", "log.error.>")),
    ],
)
def test_subjects_become_disjoint_patterns(subjects: str, patterns: tuple[str, ...]) -> None:
    """Subjects become patterns that do not overlap, since NATS rejects overlapping ones."""
    assert settings(subjects=subjects).patterns() == patterns


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"client_rate": "inf"}, "finite number"),
        ({"address_rate": "nan"}, "finite number"),
        ({"trusted_proxies": "10.0.0.1/3"}, "bits after the prefix"),
        ({"unlimited_addresses": "10.0.0.1/3"}, "bits after the prefix"),
        ({"auth": "JWT"}, "'none'"),
        ({"subjects": "orders.>"}, "'orders.>' is not within"),
        ({"subjects": "checkpoint.>"}, "'checkpoint.>' is not within"),
        ({"subjects": "*.status.>"}, "is not within"),
        ({"subjects": ""}, "empty"),
        ({"subjects": "log.>,"}, "empty"),
        ({"auth": "jwt"}, "required to verify tokens; set it to HS256"),
        ({"host": "0.0.0.0"}, "--insecure"),
        ({"host": "::"}, "--insecure"),
        ({"host": "relay.example.com"}, "--insecure"),
        ({"port": 70_000}, "65535"),
        ({"client_rate": -1}, "greater than or equal to 0"),
        ({"log_size": 0}, "greater than 0"),
        ({"nats_url": "nowhere"}, "is not a valid address"),
        ({"subject_prefix": "a.>"}, "wildcard"),
        ({"nats_user": "relay", "nats_password": "x"}, "without --nats-url"),
        ({"nats_ca": "ca.pem"}, "without --nats-url"),
    ],
)
def test_invalid_settings_are_rejected(values: dict[str, Any], text: str) -> None:
    """An invalid setting is an error that states the expected form."""
    with pytest.raises(ValidationError, match=text):
        settings(**values)


def test_a_public_address_requires_insecure() -> None:
    """Listening on all addresses requires ``--insecure``, and listening on loopback does not."""
    assert settings(host="0.0.0.0", insecure=True).host == "0.0.0.0"
    assert settings(host="::1").host == "::1"


def test_settings_are_frozen() -> None:
    """Settings cannot be changed, since they are read only once."""
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1  # type: ignore[misc]


def test_data_is_stored_in_the_xdg_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data is stored in the folder that the XDG specification defines."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_home() == tmp_path / "tickertape"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".local" / "share" / "tickertape"

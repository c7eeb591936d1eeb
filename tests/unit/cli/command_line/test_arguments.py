"""Command lines: values, repeated options and suggestions for unknown ones."""

from typing import Any

import pytest
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.relay.settings import ServeSettings

from tickertape.cli.command_line.arguments import parse
from tickertape.cli.main import main
from tickertape.cli.streams import StreamsSettings
from tickertape.config.model import Settings
from tickertape.config.resolve import SettingsError


@pytest.mark.parametrize(
    ("model", "line", "values"),
    [
        (ServeSettings, "", {}),
        (ServeSettings, "--port=1 --insecure --no-audit", {"port": "1", "insecure": True, "audit": False}),
        (ServeSettings, "--port 1 --port 2", {"port": "2"}),
        (ServeSettings, "--allowed-origins a,b --allowed-origins c", {"allowed_origins": ["a,b", "c"]}),
        (ShipSettings, "a --root /r b --once c", {"paths": ["a", "b", "c"], "root": ["/r"], "once": True}),
        (ShipSettings, "--source x - ", {"paths": ["-"], "source": "x"}),
        (ShipSettings, "-- --file", {"paths": ["--file"]}),
        (StreamsSettings, "--replicas 1 apply", {"action": "apply", "replicas": "1"}),
    ],
)
def test_values(model: type[Settings], line: str, values: dict[str, Any]) -> None:
    """Only values that are given are returned, wherever positional arguments are."""
    assert parse(model, line.split()) == values


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--prot 1", "unknown option --prot; did you mean --port?"),
        ("--nats_url=x", "unknown option --nats_url; did you mean --nats-url?"),
        ("-port 1", "unknown option -port; did you mean --port?"),
        ("--nats-u x", "unknown option --nats-u; did you mean --nats-url?"),
        ("--no-insecur", "unknown option --no-insecur; did you mean --no-insecure?"),
        ("--hepl", "unknown option --hepl; did you mean --help?"),
        ("--zzzzzzzz", "unknown option --zzzzzzzz"),
        ("stray", "unexpected argument 'stray'"),
        ("--port", "--port: expected one argument"),
        ("--insecure=yes", "--insecure/--no-insecure: ignored explicit argument 'yes'"),
    ],
)
def test_mistakes(line: str, text: str) -> None:
    """An unknown option is named with the one that it resembles, which is never assumed."""
    with pytest.raises(SettingsError) as caught:
        parse(ServeSettings, line.split())
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("srve", "tickertape unknown command 'srve'; did you mean serve?"),
        ("zzz", "tickertape unknown command 'zzz'; choose from demo, serve, "),
        ("streams aply", "tickertape streams: ACTION: Input should be 'show', 'apply', "),
        ("streams aply", "; did you mean apply?"),
        ("serve --auth jtw", "; did you mean jwt?"),
    ],
)
def test_unknown_commands_and_choices(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands, actions and choices are named with the ones that they resemble."""
    assert main(line.split()) == 2
    assert text in capsys.readouterr().err

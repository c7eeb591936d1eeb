"""Names of pods, namespaces and containers in the paths of logs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.container_paths import container_names
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts
from tickertape.producers.shipper.settings import ShipSettings

NOW = 1_790_000_000.0
ID = "0123456789abcdef" * 4
UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
LINK = f"/var/log/containers/web-7d4b9c6f5-x2x9k_trading_order-gw-{ID}.log"
FOLDER = f"/var/log/pods/trading_web-7d4b9c6f5-x2x9k_{UID}/order-gw"
NAMES = {"pod": "web-7d4b9c6f5-x2x9k", "namespace": "trading", "container": "order-gw"}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (LINK, tuple(NAMES.values())),
        (f"/host{LINK}", tuple(NAMES.values())),
        (f"/var/log/containers/db-0.eu_a-b_c-1-{ID}.log", ("db-0.eu", "a-b", "c-1")),
        (f"/var/log/containers/a_b_{ID}-{ID}.log", None),  # a name of 64 characters
        (f"{FOLDER}/0.log", tuple(NAMES.values())),
        (f"{FOLDER}/12.log", tuple(NAMES.values())),
        (f"{FOLDER}/0.log.20260302-103045", tuple(NAMES.values())),
        (
            f"/var/log/pods/kube-system_etcd-node.1_{'0f' * 16}/etcd/0.log",
            ("etcd-node.1", "kube-system", "etcd"),
        ),
        # Other files.
        ("/var/log/app.log", None),
        ("/var/log/containers/app.log", None),
        ("/var/log/containers/a_b_c.log", None),
        (f"/var/log/a_b_c-{ID}.log", None),
        (f"/srv/containers/a_b_c-{ID}.log", None),
        (f"/var/log/containers/more/a_b_c-{ID}.log", None),
        (f"/var/log/containers/a_b_c-{ID}.log.1", None),
        (f"/var/log/containers/a_b_c-{ID}0.log", None),
        (f"/var/log/containers/a_b_c-{ID[1:]}.log", None),
        (f"/var/log/containers/a_b_c-{ID.upper()}.log", None),
        (f"/var/log/containers/a_b_c_d-{ID}.log", None),
        (f"/var/log/containers/a_b_C-{ID}.log", None),
        (f"/var/log/containers/a_b.c_d-{ID}.log", None),
        (f"/var/log/containers/_b_c-{ID}.log", None),
        (f"/var/log/containers/a-_b_c-{ID}.log", None),
        (f"var/log/containers/a_b_c-{ID}.log", None),
        (f"{LINK}\n", None),
        (f"{FOLDER}/app.log", None),
        (f"{FOLDER}/0.log.gz", None),
        (f"{FOLDER}/more/0.log", None),
        (f"/var/log/pods/a_{UID}/c/0.log", None),
        (f"/var/log/pods/a_b_c_{UID}/c/0.log", None),
        ("/var/log/pods/a_b_c/d/0.log", None),
        ("-", None),
        ("journal", None),
    ],
)
def test_only_paths_of_kubernetes_have_names(path: str, names: tuple[str, ...] | None) -> None:
    """The names are those in a path of exactly one of the two forms."""
    assert container_names(path) == names


@given(st.text(alphabet="ab_-./0\n", max_size=40))
def test_any_text_is_a_path(text: str) -> None:
    """A path that is almost one of the two forms raises no error."""
    for path in (f"/var/log/containers/{text}-{ID}.log", f"/var/log/pods/{text}_{UID}/{text}/0.log"):
        names = container_names(path)
        assert names is None or (names.pod in text and "_" not in "".join(names))


def settings(path: str, **options: object) -> tuple[ShipSettings, str]:
    """Return the settings for a file, and its path."""
    return ShipSettings.model_validate({"paths": [path], **options}), path


def parse(given: tuple[ShipSettings, str], lines: list[str], block: int = 1000) -> list[ParsedEvent]:
    """Parse the lines of a file in blocks, as the shipper does."""
    ship, path = given
    parser = Parser(ship.parse_settings(path), ship.source_of(path), ParserCounts())
    data = [line.encode() for line in lines]
    ends = list(range(1, len(data) + 1))
    events = []
    for start in range(0, len(data), block):
        events += parser.feed(data[start : start + block], ends[start : start + block], NOW)
    return events + parser.flush(NOW)


def test_a_field_of_the_line_wins() -> None:
    """The names complete metadata of the runtime, and both what the program wrote."""
    lines = [
        "2026-03-02T10:30:45.1Z stderr F lost",
        '2026-03-02T10:30:45.2Z stdout F {"msg":"up","pod":"mine","stream":"own","logger":"db"}',
        r'{"log":"up\n","stream":"stdout","namespace":"docker","time":"2026-03-02T10:30:45.3Z"}',
    ]
    first, second, third = parse(settings(LINK), lines)
    assert (first.source, first.metadata) == ("order-gw", {**NAMES, "stream": "stderr"})
    assert (second.source, second.metadata) == ("db", {**NAMES, "pod": "mine", "stream": "own"})
    assert (third.source, third.metadata) == (
        "order-gw",
        {**NAMES, "namespace": "docker", "stream": "stdout"},
    )


def test_the_option_sets_the_source() -> None:
    """``--source`` replaces the container's name; other files keep their names, and have no metadata."""
    (event,) = parse(settings(LINK, source="desk"), ["2026-03-02T10:30:45.1Z stderr F lost"])
    assert (event.source, event.metadata["container"]) == ("desk", "order-gw")
    (event,) = parse(settings("/l/a_b_c.log"), ["2026-03-02T10:30:45.1Z stderr F lost"])
    assert (event.source, event.metadata) == ("a_b_c", {"stream": "stderr"})
    assert settings("-")[0].source_of("-") == "stdin"


LINES = [
    "2026-03-02T10:30:45.1Z stderr F Traceback (most recent call last):",
    '2026-03-02T10:30:45.1Z stderr F   File "a.py", line 1, in f',
    "2026-03-02T10:30:45.1Z stdout P one ",
    "2026-03-02T10:30:45.1Z stderr F ValueError: no",
    "2026-03-02T10:30:45.1Z stdout F two",
    "plain",
    "    continued",
    "",
    "password=hunter2",
]


@given(st.lists(st.sampled_from(LINES), max_size=12), st.integers(1, 12))
def test_every_event_has_the_names_however_lines_are_split(lines: list[str], block: int) -> None:
    """Lines that no runtime wrote have them as well, and the events do not depend on the blocks."""
    events = parse(settings(LINK), lines, block)
    assert all(NAMES.items() <= event.metadata.items() for event in events)
    assert events == parse(settings(LINK), lines)
    # The texts are those of the same lines in another file.
    other = parse(settings(str(Path("/l/order-gw.log"))), lines)
    assert [(event.message, event.end) for event in events] == [(each.message, each.end) for each in other]

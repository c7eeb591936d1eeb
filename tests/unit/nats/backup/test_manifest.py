"""A manifest is read as it was written, and nothing else is taken for one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.nats.backup.manifest import (
    AUDIT,
    RESTORE_ORDER,
    SNAPSHOT_ORDER,
    STREAMS,
    Manifest,
    StreamBackup,
)
from tickertape.nats.streams import Names, stream_configs


def example(stream: str = "EVENTS", **config: Any) -> StreamBackup:
    """Return an archive of a stream."""
    state = {"messages": 3, "bytes": 300, "first_seq": 1, "last_seq": 3}
    return StreamBackup(
        stream,
        {"name": stream, "max_bytes": 1024, **config},
        state,
        messages=3,
        size=200,
        sha256="0" * 64,
        format="archive",
        content_size=320,
    )


MANIFEST = Manifest("2026-01-31T00:00:00+00:00", "0.1.0", "2.15.1", "", 7, (example(), example("LATEST")))


def test_a_manifest_survives_encoding() -> None:
    """Decoding yields the manifest that was encoded."""
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST


DOCUMENT = json.loads(MANIFEST.encode())


def changed(**changes: Any) -> bytes:
    """Return the manifest with other values of its first stream."""
    first, second = DOCUMENT["streams"]
    return json.dumps({**DOCUMENT, "streams": [{**first, **changes}, second]}).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not of the format"),
        (b'{"format": "tickertape-backup-2"}', "is not of the format"),
        (json.dumps({**DOCUMENT, "streams": []}).encode(), "lists no streams"),
        (json.dumps({**DOCUMENT, "streams": DOCUMENT["streams"][:1] * 2}).encode(), "twice"),
        (json.dumps({**DOCUMENT, "streams": DOCUMENT["streams"][1:]}).encode(), "lacks EVENTS"),
        (json.dumps({**DOCUMENT, "prefix": None}).encode(), "has no prefix"),
        (changed(stream="../../EVENTS"), "unknown stream"),
        (changed(sha256="x" * 64), "invalid digest"),
        (changed(sha256="0" * 65), "invalid digest"),
        (changed(size=-1), "has no size"),
        (changed(size=True), "has no size"),
        (changed(config={}), "has no name"),
        (changed(config=None), "lacks the configuration"),
        (changed(state={"messages": 1}), "has no bytes"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named(data: bytes, problem: str) -> None:
    """Each field is checked, so that a restore can rely on it."""
    with pytest.raises(ValueError, match=problem):
        Manifest.decode(data)


@given(st.binary(max_size=50))
def test_other_data_is_rejected(data: bytes) -> None:
    """No other data raises an unexpected exception."""
    with pytest.raises(ValueError, match="is not"):
        Manifest.decode(data)


def test_no_copy_is_newer_than_its_original() -> None:
    """Snapshots are made of copies first; restored streams are connected to their sources in reverse."""
    sources = {
        config["name"]: [source["name"] for source in config.get("sources", ())]
        for config in stream_configs(Names(), (2, 15))
    }
    assert set(SNAPSHOT_ORDER) == set(RESTORE_ORDER) == set(STREAMS) == {*sources, AUDIT}
    for stream, originals in sources.items():
        for original in originals:
            assert SNAPSHOT_ORDER.index(stream) < SNAPSHOT_ORDER.index(original)
            assert RESTORE_ORDER.index(stream) > RESTORE_ORDER.index(original)

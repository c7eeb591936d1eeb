"""Every program ends when it is told to, at any moment of its run, with the right exit code and nothing left
behind.

The short form in ``tests/integration/cli/test_ends.py`` runs a few of the moments. ``CHAOS_SEED``
repeats a run.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs.ending_desk import check_end, moments, run_at
from tests.support.programs.ending_scenes import SCENES, Scene
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

SEED: Final = int(os.environ.get("CHAOS_SEED", "19"))
FULL: Final = os.environ.get("CHAOS") == "full"
MOMENTS: Final = 40 if FULL else 3
"""In short, the next program has the disturbances that this one does not have."""


@pytest.fixture
def scene(nats_server: NatsServer, tmp_path: Path) -> Iterator[Scene]:
    """Return the surroundings of the programs."""
    with Relay(nats_server.url) as relay:
        yield Scene(nats_server.url, relay.ws_url, tmp_path)


@pytest.mark.parametrize("name", SCENES)
def test_every_moment(name: str, scene: Scene) -> None:
    """At some steps of each program, with every disturbance in full."""
    program, whole = scene.undisturbed(name)
    for moment in moments(SEED, MOMENTS, whole.steps, [*SCENES].index(name) * MOMENTS):
        scene.prepare(name)
        outcome = run_at(program, moment)
        check_end(program, moment, outcome)
        scene.check(name, moment, outcome)
    scene.finish(name)

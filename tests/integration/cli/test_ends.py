"""Every program ends when it is told to: a few moments of ``tests/chaos/test_ends.py``."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.programs.ending_desk import DISTURBANCES, Moment, check_end, run_at
from tests.support.programs.ending_scenes import Scene
from tests.support.servers.nats_server import NatsServer

SERVING: Final = (600, 1500, 2600, 3300, 3700, 3750, 3000)
"""Steps of a relay: imports, its start, and its end after about 3 700."""


@pytest.fixture
def scene(nats_server: NatsServer, tmp_path: Path) -> Scene:
    """Return the surroundings of the programs, without a relay for ``tail``."""
    return Scene(nats_server.url, "ws://127.0.0.1:1/ws", tmp_path)


def check(scene: Scene, name: str, moment: Moment) -> None:
    """Run a program with one disturbance."""
    program = scene.program(name)
    scene.prepare(name)
    outcome = run_at(program, moment)
    check_end(program, moment, outcome)
    scene.check(name, moment, outcome)


@pytest.mark.parametrize(("step", "disturbance"), [*zip(SERVING, DISTURBANCES, strict=True)])
def test_a_relay(step: int, disturbance: str, scene: Scene) -> None:
    """A relay ends after each disturbance."""
    closed = (0, 1, 2) if disturbance == "closed" else ()
    check(scene, "serve", Moment(step, disturbance, closed))


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("monitor", Moment(2_500, "HUP")),
        ("ship", Moment(2_300, "stderr")),
        ("publish, open input", Moment(1_250, "TERM")),
        ("publish", Moment(1_330, "stdout")),
        ("publish", Moment(0, "closed", (1,))),
        ("tail", Moment(1_000, "closed", (0, 2))),
        ("streams", Moment(900, "INT twice")),
        ("schema", Moment(300, "TERM")),
    ],
)
def test_other_programs(name: str, moment: Moment, scene: Scene) -> None:
    """The other programs end, too."""
    check(scene, name, moment)

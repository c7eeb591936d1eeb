"""The benchmark's output: ratios, verdicts, tables, JSON, metrics, and the search for the maximum."""

import io
import math
from dataclasses import replace

import orjson
import pytest
from rich.console import Console

from tests.bench.attackers import Attack
from tests.bench.conditions import Conditions
from tests.bench.detection import Detection
from tests.bench.gateway_history import GatewayHistory
from tests.bench.many_files import ManyFiles
from tests.bench.measures.figures import figures, ratio
from tests.bench.measures.plan import Ingest, Memory, Plan, Reconnect, Replay, Results
from tests.bench.measures.report import COLUMNS, as_json, cells, notes, show
from tests.bench.measures.search import max_sustained
from tests.bench.measures.targets import NAIVE, NATS, OURS, PLAIN, sum_of
from tests.bench.monitoring import Monitoring
from tests.bench.run import Load, Row
from tests.bench.sdk import Sdk
from tests.bench.shipping import OTHER_FORMATS, Shipping
from tests.bench.starting import Starting
from tests.bench.tokens import TokenCost
from tests.bench.unread import Unread

_ROW = Row(
    target=OURS, clients=200, rate=1_000, deliveries=200_000, cores=0.5, fraction=1.0, p50=5.0, p99=10.0,
    max=12.5, mb=70.0, frames=9_000, rss_mb=60.0, load_cores=0.4,
)  # fmt: skip
_NATS = replace(_ROW, target=NATS, cores=1.25, p99=9.0)
_MAX = replace(_ROW, clients=1_000, deliveries=1_000_000, p99=60.0)
_PLAIN = replace(_MAX, target=PLAIN, cores=0.48, p50=math.nan, p99=math.nan, max=math.nan, fraction=math.nan)
_RECONNECT = Reconnect(10_000, 10_000, 9.0, 11.5, 20_000_000, 0, 0, 0, 0, 9.5, 0.8)
_MONITORING = Monitoring(1_000, 20.0, 0.11, 2.0, 70_000_000, 4_000, 0.0, 1.2)
_DETECTION = Detection(120.0, (1.1, 1.5, 2.0), 0, 0)
_HISTORY = GatewayHistory(1_000, 200_000, 2.5, 2.4, 75_000_000, 40.0, 5.0, 1.0, 140.0, 135.0)
_PARSED = {
    "plain": 200_000.0, "json": 150_000.0, "logfmt": 120_000.0, "depth": 150_000.0,
    **dict.fromkeys(OTHER_FORMATS, 100_000.0),
}  # fmt: skip
_SHIPPING = Shipping(300_000, 10.0, 0.9, 0, _PARSED, 60_000_000, 0.01, 31_000.0, 0.6, 0)
_FILES = ManyFiles(100, 100_000, 40.0, 20.0, 15.0, 0, 4.0, 0.02, 250_000_000)
_SDK = Sdk(25_000.0, 0.7, 35_000.0, 20.0, 80.0)
_TOKENS = [TokenCost("HS256", 60.0, 5.0, 50.0), TokenCost("EdDSA", 150.0, 5.0, 160.0)]
_ATTACK = Attack(
    64, 2_000.0, 60_000, 30.0, {"token: 401": 30_000, "flood: 429": 30_000}, 0, 0, 5.0, 20.0, 0.3, 0.6,
    60_000_000, 75_000_000, 70_000_000, 0.3,
)  # fmt: skip
_UNREAD = Unread(58_000, 200, 1_000, 5.0, 6.0, 0.2, 0.22, 0, 100 * 2**20, 300 * 2**20)
_CONDITIONS = Conditions(1_000, 0.2, 0.4, 10_000, 10_000)
_RESULTS = Results(
    same=[_ROW, _NATS, replace(_ROW, target=NAIVE, cores=1.0, deliveries=85_000, notes=["too slow"])],
    max_load=[_MAX, _PLAIN],
    idle=replace(_ROW, clients=10, p50=0.6, p99=1.3),
    memory=Memory(5_000, 60_000_000, 60_000_000 + 5_000 * 5_120),
    ingest=[Ingest(OURS, False, 200_000, 4.0, 4.1), Ingest(OURS, True, 200_000, 10.0, 10.1)],
    stalled=[replace(_MAX, rss_mb=60.0), replace(_MAX, clients=900, p99=66.0, rss_mb=66.0)],
    stalled_clients=100,
    filters=[_MAX, replace(_MAX, cores=1.0)],
    reconnect=_RECONNECT,
    replay=[Replay(OURS, 1_000_000, 30.0, 29.0), Replay("plain nats-py", 1_000_000, 12.0, 11.0)],
    deflate=[replace(_MAX, mb=350.0), replace(_MAX, mb=50.0, cores=0.6)],
    deflate_memory=[Memory(1_000, 0, 5_000_000), Memory(1_000, 0, 5_500_000)],
    streams=[_MAX, replace(_MAX, target="SSE", cores=0.52)],
    growth=[_ROW, _MAX],
    monitoring=_MONITORING,
    detection=_DETECTION,
    history=_HISTORY,
    shipping=_SHIPPING,
    files=[_FILES, replace(_FILES, files=10_000, cpu_us=29.0)],
    sdk=_SDK,
    tokens=_TOKENS,
    attackers=[_ATTACK, replace(_ATTACK, sources=1)],
    starting=Starting(100_000, (0.6, 0.7, 0.9)),
    unread=_UNREAD,
    conditions=_CONDITIONS,
)


def _verdicts(results: Results) -> list[str]:
    return [figure.verdict for figure in figures(results)]


def test_ratio_is_of_deliveries_per_core_second() -> None:
    """A peer that uses more CPU for the same deliveries has a smaller ratio; without our figure there is
    none.
    """
    assert ratio(_NATS, _ROW) == pytest.approx(0.4)
    assert ratio(_ROW, _ROW) == 1.0
    assert ratio(_NATS, None) is None


def test_figures_are_judged() -> None:
    """A figure that reaches its target is ok, and another is short."""
    assert _verdicts(_RESULTS) == ["ok"] * 9 + ["short"] + ["ok"] * 51


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"max_load": [replace(_MAX, cores=0.51)]}),
        (1, {"max_load": [replace(_MAX, p99=100.0)]}),
        (1, {"max_load": [replace(_MAX, fraction=0.98)]}),
        (2, {"max_load": [_MAX, replace(_PLAIN, cores=0.44)]}),
        (3, {"same": [replace(_ROW, p99=12.0), _NATS]}),
        (4, {"same": [replace(_ROW, cores=0.63), _NATS]}),
        (5, {"idle": replace(_ROW, p50=1.1)}),
        (6, {"idle": replace(_ROW, p50=0.5, p99=3.1)}),
        (7, {"memory": Memory(1_000, 0, 6_200_000)}),
        (8, {"ingest": [Ingest(OURS, False, 39_000, 1.0, 1.0)]}),
        (10, {"stalled": [_MAX, replace(_MAX, p99=73.0)]}),
        (11, {"stalled": [_MAX, replace(_MAX, rss_mb=67.0)]}),
        (12, {"filters": [_MAX, replace(_MAX, cores=1.01)]}),
        (13, {"reconnect": replace(_RECONNECT, live=12.1)}),
        (13, {"reconnect": replace(_RECONNECT, live=None, connected=None)}),
        (14, {"reconnect": replace(_RECONNECT, lost=1)}),
        (14, {"reconnect": replace(_RECONNECT, repeated=1)}),
        (14, {"reconnect": replace(_RECONNECT, gaps=1)}),
        (14, {"reconnect": replace(_RECONNECT, behind=1)}),
        (15, {"replay": [Replay(OURS, 29_000, 1.0, 1.0)]}),
        (16, {"replay": [Replay(OURS, 40_000, 1.0, 1.0, lost=1)]}),
        (16, {"replay": [Replay(OURS, 40_000, 1.0, 1.0, repeated=1)]}),
        (17, {"deflate": [_MAX, replace(_MAX, mb=12.0)]}),
        (18, {"deflate": [_MAX, replace(_MAX, mb=10.0, cores=0.66)]}),
        (19, {"deflate_memory": [Memory(1_000, 0, 5_000_000), Memory(1_000, 0, 6_100_000)]}),
        (20, {"monitoring": replace(_MONITORING, cores=0.16)}),
        (21, {"monitoring": replace(_MONITORING, rss=121_000_000)}),
        (22, {"monitoring": replace(_MONITORING, late=0.02)}),
        (23, {"monitoring": replace(_MONITORING, burst_ratio=1.6)}),
        (24, {"detection": replace(_DETECTION, delays=(1.1, 2.1, 2.2))}),
        (24, {"detection": replace(_DETECTION, delays=())}),
        (25, {"detection": replace(_DETECTION, missed=1)}),
        (25, {"detection": replace(_DETECTION, false=1)}),
        (26, {"history": replace(_HISTORY, cpu=3.1)}),
        (27, {"history": replace(_HISTORY, slowest=101.0)}),
        (28, {"history": replace(_HISTORY, page=301.0)}),
        (29, {"shipping": replace(_SHIPPING, seconds=13.4)}),
        (30, {"shipping": replace(_SHIPPING, wrong=1)}),
        (31, {"shipping": replace(_SHIPPING, parsed={**_PARSED, "plain": 199_000.0})}),
        (32, {"shipping": replace(_SHIPPING, parsed={**_PARSED, "json": 149_000.0})}),
        (33, {"shipping": replace(_SHIPPING, parsed={**_PARSED, "logfmt": 119_000.0})}),
        (34, {"shipping": replace(_SHIPPING, parsed={**_PARSED, "depth": 149_000.0})}),
        (35, {"shipping": replace(_SHIPPING, parsed={**_PARSED, "CRI": 99_000.0})}),
        (36, {"shipping": replace(_SHIPPING, outage_rss=101_000_000)}),
        (37, {"shipping": replace(_SHIPPING, idle_cores=0.021)}),
        (38, {"sdk": replace(_SDK, rate=19_999.0)}),
        (39, {"sdk": replace(_SDK, emit_us=50.0)}),
        (40, {"tokens": [replace(_TOKENS[0], fresh=201.0)]}),
        (41, {"attackers": [replace(_ATTACK, attempted=56_000)]}),
        (41, {"attackers": [replace(_ATTACK, ends={"token: admitted": 1})]}),
        (42, {"attackers": [replace(_ATTACK, closed=1)]}),
        (42, {"attackers": [replace(_ATTACK, lost=1)]}),
        (43, {"attackers": [replace(_ATTACK, attack_p99=25.1)]}),
        (44, {"attackers": [replace(_ATTACK, rss_peak=80_100_000)]}),
        (48, {"attackers": [replace(_ATTACK, sources=1, rss_after=80_100_000)]}),
        (49, {"starting": Starting(100_000, (1.0, 2.1, 2.2))}),
        (50, {"unread": replace(_UNREAD, rss_peak=301 * 2**20)}),
        (51, {"unread": replace(_UNREAD, p99=6.1)}),
        (51, {"unread": replace(_UNREAD, closed=1)}),
        (52, {"streams": [_MAX, _MAX, replace(_MAX, target="SSE", cores=0.56)]}),
        (53, {"conditions": replace(_CONDITIONS, cores=0.41)}),
        (53, {"conditions": replace(_CONDITIONS, delivered=9_800)}),
        (54, {"files": [replace(_FILES, cpu_us=22.1)]}),
        (55, {"files": [_FILES, replace(_FILES, cpu_us=30.1)]}),
        (56, {"files": [replace(_FILES, wrong=1), _FILES]}),
        (57, {"files": [_FILES, replace(_FILES, restart=5.1)]}),
        (58, {"files": [_FILES, replace(_FILES, idle_cores=0.031)]}),
        (59, {"shipping": replace(_SHIPPING, syslog_rate=29_999.0)}),
        (60, {"shipping": replace(_SHIPPING, syslog_wrong=1)}),
    ],
)
def test_figure_that_is_not_reached_is_short(index: int, change: dict[str, object]) -> None:
    """A figure on the wrong side of its target is short."""
    assert _verdicts(replace(_RESULTS, **change))[index] == "short"  # type: ignore[arg-type]


def test_what_was_not_run_is_not_judged() -> None:
    """Figures without results are listed as not measured."""
    assert set(_verdicts(Results())) == {"-"}
    assert {figure.measured for figure in figures(Results())} == {"not measured"}


def test_row_has_a_cell_for_each_column() -> None:
    """A row shows the measured values, and a dash for those that cannot be measured."""
    shown = dict(zip(COLUMNS, cells(_PLAIN, _MAX), strict=True))
    assert shown["target"] == PLAIN
    assert shown["deliveries/s"] == "1,000,000"
    assert shown["per core-second"] == "2,083,333"
    assert shown["p99 ms"] == "-"
    assert shown["ratio to ours"] == "1.042"


def test_sustained_means_delivered_in_time() -> None:
    """A row that lost over 1 %, took a second, or fell behind is not sustained; plain sending never is."""
    assert _ROW.sustained
    assert not replace(_ROW, fraction=0.98).sustained
    assert not replace(_ROW, p99=1_000.0).sustained
    assert not replace(_ROW, deliveries=180_000).sustained
    assert not _PLAIN.sustained


def test_tables_show_rows_notes_and_figures() -> None:
    """The output names every target, reservations about it, and the verdicts."""
    console = Console(file=io.StringIO(), width=80)
    show(console, Plan(), _RESULTS, quick=True)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for word in (
        OURS,
        NATS,
        NAIVE,
        PLAIN,
        "! naive, 200 clients: too slow",
        "short",
        "5.0 KB",
        "A quick run",
        "Cost by number of clients",
        "11.5 s (connected after 9.0 s)",
    ):
        assert word in text
    assert notes([_ROW]) == []


def test_json_has_null_for_what_is_unknown() -> None:
    """JSON has null where the table has a dash, and includes the ratios."""
    shown = orjson.loads(orjson.dumps(as_json(Plan(), _RESULTS, quick=False)))
    assert shown["max"][1]["p99"] is None
    assert shown["same"][1]["ratio"] == pytest.approx(0.4)
    assert shown["memory"]["each"] == 5_120
    assert shown["ingest"][0]["per_core"] == 50_000
    assert shown["replay"][1]["rate"] == pytest.approx(83_333, rel=0.01)
    assert [memory["each"] for memory in shown["deflate_memory"]] == [5_000, 5_500]
    assert [figure["ok"] for figure in shown["figures"]] == [True] * 9 + [False] + [True] * 51
    assert orjson.dumps(as_json(Plan(), Results(), quick=True))


@pytest.mark.parametrize(
    ("clients", "sampled"), [(1, 1), (10, 10), (50, 2), (200, 4), (1_000, 20), (10_000, 50)]
)
def test_sample_is_one_in_fifty(clients: int, sampled: int) -> None:
    """One client in fifty is sampled, at least two, at most fifty, and all of a few."""
    assert Load(clients, 1_000, 10).sampled == sampled


@pytest.mark.parametrize("limit", [1, 3, 49, 50, 85, 170, 1_000, 3_999])
def test_search_finds_the_most(limit: int) -> None:
    """The search ends within a quarter below the sustainable maximum, and never above it."""
    found = max_sustained(lambda number: (number <= limit, number), 50, attempts=20)
    assert found is not None
    assert found[0] == found[1] <= limit <= found[0] * 1.25 + 1


def test_search_stops() -> None:
    """The search stops if nothing is sustained, at its cap, and after its number of tries."""
    tried: list[int] = []

    def attempt(number: int) -> tuple[bool, None]:
        tried.append(number)
        return number <= 0, None

    assert max_sustained(attempt, 8) is None
    assert tried == [8, 4, 2, 1]
    assert max_sustained(lambda number: (True, None), 100, cap=700, attempts=20) == (700, None)
    assert max_sustained(lambda number: (True, None), 100, attempts=1) == (100, None)


def test_metric_is_summed_over_its_labels() -> None:
    """A metric is the sum of its own samples."""
    text = '# TYPE a_total counter\na_total{kind="log"} 5.0\na_total{kind="state"} 2.0\na_total_created 9\n'
    assert sum_of(text, "a_total") == 7
    assert sum_of("b 3.5\n", "b") == 3.5
    assert sum_of("", "a_total") == 0

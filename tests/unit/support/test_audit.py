"""The audit never passes for packages that were not looked up."""

from pathlib import Path
from typing import Any

import pytest

from tests.support import audit

FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize(
    ("found", "fine", "text"),
    [
        ([FINE], True, "1 packages audited, no known vulnerabilities"),
        ([FINE, BAD], False, "b 2: PYSEC-1, fixed in ['3']"),
        ([FINE, SKIPPED], False, "1 of 2 packages were not audited: c"),
        ([SKIPPED, SKIPPED], False, "nothing was audited: Dependency not found"),
        ([FINE, {"name": "d", "version": "1"}], False, "1 of 2 packages were not audited: d"),
        ([{"name": "d", "version": "1"}], False, "nothing was audited: no result"),
        ([], False, "nothing was audited: the report is empty"),
    ],
)
def test_only_a_complete_audit_passes(found: list[dict[str, Any]], fine: bool, text: str) -> None:
    """A package without a result fails the audit, as a vulnerable one does; the line says which."""
    assert audit.judge(found)[0] is fine
    assert text in audit.judge(found)[1]


def test_without_a_network_nothing_was_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without access to PyPI the audit fails with one line, and does not claim anything."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"h11==0.16.0 --hash=sha256:{'0' * 64}\n")
    fine, text = audit.run("--cache-dir", str(tmp_path / "cache"), "--timeout", "1", lock=lock)
    assert not fine
    assert text.startswith("nothing was audited: ")
    assert "\n" not in text

"""Audit of the locked packages for known vulnerabilities: ``python -m tests.support.audit``.

pip-audit reports "no known vulnerabilities" when it could not look up a single package. This program succeeds
only if every package of the lock was looked up.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

LOCK: Final = ROOT / "deploy" / "requirements.txt"


def run(*options: str, lock: Path = LOCK) -> tuple[bool, str]:
    """Run pip-audit on a lock; return whether all packages are known to be fine, and one line or more.

    Args:
        options: further options of pip-audit.
        lock: lock with hashes.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json"]
    command += ["--progress-spinner", "off", "-r", str(lock), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return False, f"nothing was audited: pip-audit failed: {reason[:200]}; check the access to PyPI"
    return judge(found)


def judge(found: list[dict[str, Any]]) -> tuple[bool, str]:
    """Return whether all packages of a report are known to be fine, and one line or more.

    Args:
        found: list ``dependencies`` of a report of pip-audit.
    """
    skipped = [one["name"] for one in found if "skip_reason" in one or "vulns" not in one]
    audited = len(found) - len(skipped)
    if not audited:
        reason = next((one.get("skip_reason", "no result") for one in found), "the report is empty")
        return False, f"nothing was audited: {reason}; check the access to PyPI"
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}, fixed in {fault['fix_versions'] or 'no version'}"
        for one in found
        for fault in one.get("vulns", ())
    ]
    if skipped:
        lines.append(f"{len(skipped)} of {len(found)} packages were not audited: {', '.join(skipped)}")
    return not lines, "\n".join(lines) or f"{audited} packages audited, no known vulnerabilities"


if __name__ == "__main__":
    fine, text = run(*sys.argv[1:])
    print(text)
    sys.exit(0 if fine else 1)

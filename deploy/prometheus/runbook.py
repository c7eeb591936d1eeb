"""The page to which alerts link, from the section about alerts in ``deploy/README.md``: ``make runbook``.

Prometheus serves it itself (``--web.user-assets=deploy/prometheus/runbook``), so that the links of alerts
work without another server, in the version of the rules.
"""

import re
import sys
from pathlib import Path

from markdown_it import MarkdownIt

DEPLOY = Path(__file__).parent.parent
PAGE = DEPLOY / "prometheus" / "runbook" / "runbook.html"
_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tickertape: responding to alerts</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
code { font-size: .9em }
h3:target { outline: 2px solid; outline-offset: .25rem }
</style>
"""


def runbook(text: str) -> str:
    """Return the page.

    Args:
        text: contents of ``deploy/README.md``.
    """
    section = text.partition("\n## Responding to alerts\n")[2].partition("\n## ")[0]
    body = MarkdownIt().enable("table").render(f"# Responding to alerts\n{section}")
    body = re.sub(r"<h3>(\w+)</h3>", lambda found: f'<h3 id="{found[1].lower()}">{found[1]}</h3>', body)
    # Other pages of the folder are not served.
    body = re.sub(r'<a href="(?!https?:)[^"]*">(.*?)</a>', r"\1", body)
    return f"{_HEAD}{body}</html>\n"


if __name__ == "__main__":
    page = runbook((DEPLOY / "README.md").read_text(encoding="utf-8"))
    if "--check" in sys.argv:
        current = PAGE.read_text(encoding="utf-8") == page
        sys.exit(None if current else "the runbook is outdated: run 'make runbook'")
    PAGE.write_text(page, encoding="utf-8")

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in a browser: it fits a phone, asks no network for anything, and its charts have a size."""

from __future__ import annotations

import html
import json
import pathlib
import re
import shutil
import subprocess

import pytest
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import page

from tests.unit.report.sample import HOSTS, RDS_HOSTS, document, evidence, forced_failover, rds

CHROMIUM = shutil.which("chromium")
TEMPLATE = pathlib.Path(__file__).resolve().parents[3] / "roles" / "report" / "templates" / "report.html.j2"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--virtual-time-budget=5000",
)  # fmt: skip
# The page's own policy forbids scripts, so one that looks at it stands around it.
LOOK = """<!doctype html><body><iframe id="page" style="width:%dpx;height:800px;border:0" srcdoc="%s"></iframe><pre id="seen"></pre><script>
const frame = document.getElementById('page');
frame.addEventListener('load', () => {
  const view = frame.contentDocument, root = view.documentElement;
  const wide = [...view.querySelectorAll('body *')].filter(e => !e.closest('.scroll, nav, svg') && e.getBoundingClientRect().right > root.clientWidth + 1);
  document.getElementById('seen').textContent = JSON.stringify({
    scrolls: root.scrollWidth > root.clientWidth,
    wide: wide.map(e => e.tagName + '.' + e.className),
    charts: [...view.querySelectorAll('#cutover svg, #replication svg')].map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]),
    asked: performance.getEntriesByType('resource').length + frame.contentWindow.performance.getEntriesByType('resource').length,
    paper: getComputedStyle(view.body).backgroundColor,
    verdict: view.querySelector('.verdict h2').innerText,
  });
});
</script></body>"""


# What did not pass is open, so that what the service says of it is seen as well.
MANAGED = rds(failover=document("failover", scenarios=[forced_failover(1, 13_800.0, passed=False)]))


@pytest.fixture(params=[(360, evidence(), HOSTS), (1200, evidence(), HOSTS), (360, MANAGED, RDS_HOSTS), (1200, MANAGED, RDS_HOSTS)])
def seen(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> dict[str, object]:
    """What a browser of that width makes of the page."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    width, documents, hosts = request.param
    text = page.render(TEMPLATE.read_text(encoding="utf-8"), "move", documents, hosts, html=True)
    around = tmp_path / "around.html"
    around.write_text(LOOK % (width, html.escape(text)), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", around.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'<pre id="seen">(\{.*?\})</pre>', dom)
    assert found is not None, dom[-2000:]
    return {"width": width, **json.loads(html.unescape(found[1]))}


def test_the_page_fits_and_asks_for_nothing(seen: dict[str, object]) -> None:
    assert seen["verdict"] == "The target serves the application."
    assert (seen["scrolls"], seen["wide"], seen["asked"]) == (False, [], 0)
    charts = seen["charts"]
    assert isinstance(charts, list) and len(charts) == 4
    assert all(width > 200 and height > 80 for width, height in charts)

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in a browser: it fits a phone, asks no network for anything, its charts have a size, every word can be read by day and by night, and it prints."""

from __future__ import annotations

import html
import json
import pathlib
import re
import shutil
import subprocess
import typing as t

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
LOOK = r"""<!doctype html><body><iframe id="page" style="width:%dpx;height:800px;border:0" srcdoc="%s"></iframe><pre id="seen"></pre><script>
const frame = document.getElementById('page');
frame.addEventListener('load', () => {
  const view = frame.contentDocument, root = view.documentElement;
  const parts = (colour) => (colour.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map(v => v / 255).map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) { const colour = parts(getComputedStyle(e).backgroundColor); if (colour[3] !== 0) return colour; }
    return [255, 255, 255];
  };
  const contrast = (e) => {
    const style = getComputedStyle(e), one = light(parts(e.closest('svg') ? style.fill : style.color)), two = light(behind(e));
    return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  };
  const worded = [...view.querySelectorAll('body *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.nodeValue.trim()) && e.getClientRects().length);
  const wide = [...view.querySelectorAll('body *')].filter(e => !e.closest('.scroll, nav, svg') && e.getBoundingClientRect().right > root.clientWidth + 1);
  document.getElementById('seen').textContent = JSON.stringify({
    scrolls: root.scrollWidth > root.clientWidth,
    wide: wide.map(e => e.tagName + '.' + e.className),
    charts: [...view.querySelectorAll('#cutover svg, #replication svg')].map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]),
    asked: performance.getEntriesByType('resource').length + frame.contentWindow.performance.getEntriesByType('resource').length,
    paper: light(behind(view.body)),
    words: worded.length,
    faint: [...new Set(worded.filter(e => contrast(e) < 4.5).map(e => e.tagName + '.' + (e.className.baseVal ?? e.className) + ' ' + contrast(e).toFixed(2)))],
    verdict: view.querySelector('.verdict h2').innerText,
  });
});
</script></body>"""


# What did not pass is open, so that what the service says of it is seen as well.
MANAGED = rds(failover=document("failover", scenarios=[forced_failover(1, 13_800.0, passed=False)]))
PAGES = {"patroni": (evidence(), HOSTS), "rds": (MANAGED, RDS_HOSTS)}


def browse(tmp_path: pathlib.Path, text: str, *more: str) -> str:
    """What the browser prints of a page; ``more`` are further flags."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *more, file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def rendered(name: str) -> str:
    """The page."""
    documents, hosts = PAGES[name]
    return page.render(TEMPLATE.read_text(encoding="utf-8"), "move", documents, hosts, html=True)


def see(tmp_path: pathlib.Path, name: str, width: int, *more: str) -> dict[str, t.Any]:
    """What a browser of that width makes of it."""
    dom = browse(tmp_path, LOOK % (width, html.escape(rendered(name))), "--dump-dom", *more)
    found = re.search(r'<pre id="seen">(\{.*?\})</pre>', dom)
    assert found is not None, dom[-2000:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_and_asks_for_nothing(tmp_path: pathlib.Path, name: str, width: int) -> None:
    seen = see(tmp_path, name, width)
    assert seen["verdict"] == "The target serves the application."
    assert (seen["scrolls"], seen["wide"], seen["asked"]) == (False, [], 0)
    assert len(seen["charts"]) == 4 and all(width > 200 and height > 80 for width, height in seen["charts"])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "least", "most"), [(1, 0.8, 1.0), (0, 0.0, 0.1)], ids=["light", "dark"])
def test_every_word_can_be_read_by_day_and_by_night(tmp_path: pathlib.Path, name: str, scheme: int, least: float, most: float) -> None:
    """Contrast of 4.5 at least: https://www.w3.org/TR/WCAG22/#contrast-minimum"""
    seen = see(tmp_path, name, 1200, f"--blink-settings=preferredColorScheme={scheme}")
    assert least <= seen["paper"] <= most and seen["words"] > 100 and seen["faint"] == []


@pytest.mark.parametrize("name", PAGES)
def test_the_page_prints(tmp_path: pathlib.Path, name: str) -> None:
    file = tmp_path / "page.pdf"
    browse(tmp_path, rendered(name), "--blink-settings=preferredColorScheme=0", f"--print-to-pdf={file}")
    pages = re.findall(rb"/Type /Page\b[^s]", file.read_bytes())
    assert 2 <= len(pages) <= 30

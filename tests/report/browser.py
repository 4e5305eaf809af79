"""Checks a page with a real browser and axe: light and dark, laptop and phone width."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SCRIPT = """
const [modules, file, click] = process.argv.slice(2);
const { chromium } = require(modules + '/playwright-core');
(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
  const problems = [], texts = [];
  for (const colorScheme of ['light', 'dark']) for (const width of [1280, 360]) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    page.on('request', (request) => /^(file|data):/.test(request.url()) || problems.push(request.url()));
    page.on('console', (message) => problems.push(message.text()));
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto('file://' + file);
    await page.evaluate(() => document.querySelectorAll('details').forEach((details) => { details.open = true; }));
    const isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    if (isTooWide) problems.push('too wide at ' + width);
    for (const name of click ? click.split('|') : []) {
      await page.getByRole('button', { name, exact: true }).click();
      texts.push(await page.locator('tbody th').allInnerTexts());
    }
    await page.addScriptTag({ path: modules + '/axe-core/axe.min.js' });
    const result = await page.evaluate(() => axe.run());
    problems.push(...result.violations.map((fault) => `${colorScheme} ${fault.id}: ${fault.nodes[0].html}`));
    await page.close();
  }
  await browser.close();
  console.log(JSON.stringify([problems, texts]));
})();
"""


def check_page(html: str, folder: Path, click: str = "") -> list[list[str]]:
    """Asserts that `html` has no violation; returns the row names after each click on a button of `click`."""
    modules, node, chromium = os.environ.get("BONEAGE_AXE"), shutil.which("node"), shutil.which("chromium")
    if not (modules and node and chromium):
        pytest.skip("needs node, chromium, and BONEAGE_AXE naming a node_modules with axe-core and playwright-core")
    (folder / "page.html").write_text(html, encoding="utf-8")
    (folder / "check.js").write_text(_SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [node, folder / "check.js", modules, folder / "page.html", click],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "CHROMIUM": chromium},
    )  # fmt: skip
    assert done.stderr == ""
    problems, texts = json.loads(done.stdout)
    assert problems == []
    return list(texts)

"""Headless Chromium for tests of pages: what a page must not do, and pictures of it in both schemes and widths."""

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from playwright.sync_api import Request as PageRequest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = "LWDDPM_REQUIRE_BROWSER" in os.environ
SHOTS = Path(os.environ.get("LWDDPM_SCREENSHOTS", "build/screenshots"))
WIDTHS = {1280: 900, 390: 844}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE_MS = 60_000
EXPECTED = (
    "status of 422",  # what a form has asked for wrongly; the page says so
    "Blocked script execution",  # of a report, which is shut in
)
IN_BROWSER = [  # `pytestmark` of a module
    pytest.mark.browser,
    pytest.mark.timeout(600),  # the first test waits for the world
    pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium here: apt-get install chromium"),
]


def in_browser(test: Callable[..., None]) -> Callable[..., None]:
    """The same marks for one test."""
    return functools.reduce(lambda marked, mark: mark(marked), IN_BROWSER, test)


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium for the length of a block, in which nothing else of this thread may use an event loop."""
    assert CHROMIUM is not None, "LWDDPM_REQUIRE_BROWSER is set and there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield found
        found.close()


@contextmanager
def visited(browser: Browser, url: str) -> Iterator[Page]:
    """A page that may show no error, run nothing foreign and ask nobody but the board."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=url, reduced_motion="reduce")
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    problems: list[str] = []

    def asked(request: PageRequest) -> None:
        if not request.url.startswith((url, "data:")):
            problems.append(f"asked {request.url}")

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in EXPECTED):
            problems.append(message.text)

    made.on("request", asked)
    made.on("console", said)
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("dialog", lambda dialog: problems.append(f"executed: {dialog.message}"))
    yield made
    context.close()
    assert not problems


CUT_OFF = """() => [...document.querySelectorAll(".scroll")]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => [box.innerText, box.scrollWidth, box.clientWidth])"""


def photograph(page: Page, name: str) -> None:
    """Look at a page in both schemes and widths, and keep what is seen."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.evaluate("Promise.allSettled([...document.images].map(i => { i.loading = 'eager'; return i.decode(); }))")
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(60)  # charts follow the width in the next frame
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} scrolls sideways at {width} px: {wide}"
            if width >= 1280:
                assert page.evaluate(CUT_OFF) == [], f"tables of {name} scroll sideways at {width} px"
            page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


def tile(page: Page, name: str) -> str:
    return page.locator(".tiles div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def keep(page: Page, name: str) -> None:
    """A picture of somebody else's page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1500)  # until its charts have settled
    page.screenshot(path=SHOTS / f"{name}.png")


# words that stand in two lines; a name may break after its _, . and /
BROKEN = """() => [...document.querySelectorAll("th, dt")].flatMap(place => {
    if (getComputedStyle(place.closest("thead") ?? place).clipPath !== "none") return [];  // for screen readers alone
    const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT), broken = [];
    for (let text; (text = texts.nextNode());) for (const word of text.data.matchAll(/[^\\s_./-]+/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map(line => Math.round(line.top))).size > 1) broken.push(word[0]);
    }
    return broken;
})"""

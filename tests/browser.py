"""Chromium without a screen, for the tests and the benchmark of the report's page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root, which containers are, Chromium starts without its sandbox alone; and it must not look for updates.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
NO_BROWSER = "no Chromium here; install one (Debian: apt-get install chromium), or name it in CHROMIUM"
DESKTOP, PHONE = (1280, 900), (375, 812)
# What axe may find wrong: the rules of WCAG 2 at A and AA, and what is good practice besides.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}
# Milliseconds that anything may take on a busy machine.
PATIENCE = 30_000


@dataclass
class Watched:
    """A page, and what it has said and asked for: errors of its console, and addresses other than its own."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, file: Path, fragment: str = "") -> None:
        """Load a file, and wait until all of it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(file.as_uri() + fragment)
        self.wait()

    def wait(self) -> None:
        """Wait until all is drawn."""
        self.page.wait_for_selector("html[data-ready]", timeout=PATIENCE, state="attached")


@cache
def chromium() -> str | None:
    """The browser's program; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser, for as long as the block takes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: Browser, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Iterator[Watched]:
    """An empty page of this width and height, by day or in the dark."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    context.set_default_timeout(PATIENCE)
    seen = Watched(context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.errors.append(message.text)

    def note(request: Request) -> None:
        # to come here is one as well, and an address may hold the data itself
        if not (request.is_navigation_request() or request.url.startswith("data:")):
            seen.requests.append(request.url)

    seen.page.on("console", hear)
    seen.page.on("pageerror", lambda error: seen.errors.append(error.stack or error.message))
    seen.page.on("request", note)
    try:
        yield seen
    finally:
        context.close()


def violations(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds wrong with the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    return [dict(one) for one in Axe().run(page, options=RULES).response["violations"]]

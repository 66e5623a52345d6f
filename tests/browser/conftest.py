"""A browser, and a page in it that fetches nothing from elsewhere."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.browser import CHROMIUM
from tests.waiting import PATIENCE_SECONDS

expect.set_options(timeout=1000 * PATIENCE_SECONDS)

OPTIONS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without a history, which fails with what a script throws and with what is asked of other hosts."""
    faults: list[str] = []

    def refuse(route: Route) -> None:
        faults.append(f"asks for {route.request.url}")
        route.abort()

    with browser.new_context() as context:
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        context.route(lambda url: not url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")), refuse)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"throws {error}"))
        yield page
    assert not faults

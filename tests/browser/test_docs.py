"""The description of the API in a browser."""

import pytest
from flask import Flask
from playwright.sync_api import Locator, Page, expect

from tests.callers import token
from tests.conftest import fill_demo, served


def authorize(page: Page, sub: str, role: str) -> None:
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(token(sub, role))
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()


def opened(page: Page, operation: str) -> Locator:
    """Open an operation of the page."""
    block = page.locator(f"[id$='-{operation}']")
    block.locator(".opblock-summary-control").click()
    return block


def status_of(block: Locator) -> Locator:
    """Send the request that stands there at first, and return where the page shows the status of the answer."""
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table .response-col_status").last


def test_the_page_of_the_description_shows_every_operation(page: Page, app: Flask) -> None:
    with served(app) as address:
        page.goto(f"{address}/docs")
        expect(page.get_by_text("/api/progress/{userId}/merge")).to_be_visible()


@pytest.mark.parametrize("usual_app", ["sqlite"], indirect=True)
def test_the_first_click_succeeds_and_a_reload_keeps_the_token(page: Page, app: Flask) -> None:
    fill_demo(app)
    with served(app) as address:
        page.goto(f"{address}/docs")
        authorize(page, "sam", "student")
        update = opened(page, "sendUpdate")
        expect(update.locator(".examples-select-element option").first).to_have_text("student: progress in a lab")
        expect(status_of(update)).to_contain_text("201")

        page.reload()
        dashboard = opened(page, "readDashboard")
        expect(status_of(dashboard)).to_contain_text("200")
        expect(dashboard.locator(".live-responses-table")).to_contain_text("sql-joins")


@pytest.mark.parametrize("usual_app", ["sqlite"], indirect=True)
def test_the_roster_can_be_had_as_a_table_and_its_parameters_have_types(page: Page, app: Flask) -> None:
    fill_demo(app)
    with served(app) as address:
        page.goto(f"{address}/docs")
        authorize(page, "ines", "instructor")
        roster = opened(page, "readRoster")
        expect(roster.locator(".parameter__type").first).to_have_text("string")
        expect(roster.get_by_text("never", exact=True)).to_have_count(0)
        roster.get_by_label("Media Type").first.select_option("text/csv")
        expect(status_of(roster)).to_contain_text("200")
        with page.expect_download() as download:
            roster.get_by_role("link", name="Download file").click()
        assert download.value.path().read_text().startswith("userId,moduleId,status")

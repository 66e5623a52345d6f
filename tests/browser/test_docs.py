"""The description of the API in a browser."""

from flask import Flask
from playwright.sync_api import Page, expect

from tests.conftest import served


def test_the_page_of_the_description_shows_every_operation(page: Page, app: Flask) -> None:
    with served(app) as address:
        page.goto(f"{address}/docs")
        expect(page.get_by_text("/api/progress/{userId}/merge")).to_be_visible()

"""The board in a real browser: it keeps itself current, can be used by everybody, and needs no script to be read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.patience import PATIENCE

ON_CI = os.environ.get("CI") == "true"
SIZES = {"phone": 375, "desk": 1280}
PATIENCE_MS = PATIENCE * 1000
"""Milliseconds that something may take to appear; the machine is shared."""
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window."""
    command = shutil.which("chromium") or shutil.which("chromium-browser")
    if command is None:
        missing = "needs Chromium: apt-get install --no-install-recommends chromium"
        if ON_CI:
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path=command, args=["--no-sandbox"]
        )  # root, in a container
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`visit(board, **how)`: a page that has come up; at the end its console must have been silent."""
    contexts, said = [], []

    def come(board: Any, width: int = 1280, **how: Any) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **how))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text))  # policy violations are told there too
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(board.url)
        return page

    yield come
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def board(stage: Any, full_stage: Callable[[Any], None], open_board: Callable[..., Any]) -> Any:
    """A board of the test's own over a full `stage`."""
    full_stage(stage)
    return open_board(stage.data)


def opened(alert: Locator) -> Locator:
    """The alert, its details opened as a finger would."""
    alert.locator("summary.line").click()
    return alert


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_everybody_can_use_it_and_nothing_sticks_out(
    shared_board: Any, visit: Callable[..., Page], size: str, scheme: str
) -> None:
    page = visit(shared_board, SIZES[size], color_scheme=scheme)
    closed = Axe().run(page, options={"resultTypes": ["violations"]})
    assert closed.violations_count == 0, closed.generate_report()
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    expect(page.locator("article.alert .live canvas").first).to_be_visible()
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 300) == (scheme == "dark")


def test_an_alert_that_fires_appears_and_is_said_aloud_and_nothing_else_moves(
    board: Any, stage: Any, visit: Callable[..., Page]
) -> None:
    page = visit(board)
    first = opened(page.locator("article.alert", has_text="eu-west"))
    sql = first.locator("details details")
    sql.locator("summary").click()
    sql.locator("summary").focus()
    page.evaluate("document.querySelector('article.alert').mark = 'the same node'")
    stage.alert(region="ap-south", severity="warning", ago=1)
    stage.publish()
    new = page.locator("article.alert", has_text="ap-south")
    expect(new).to_be_visible()
    expect(page.locator("[aria-live=polite]")).to_have_text(re.compile(r"New alert, warning: .*ap-south"))
    assert first.locator("details").evaluate_all("all => all.every((one) => one.open)"), (
        "what was opened stays open"
    )
    assert sql.locator("summary").evaluate("one => one === document.activeElement"), "focus stays"
    assert not new.locator("details").first.evaluate("one => one.open"), "and the new one is a line"
    assert page.evaluate("document.querySelector('article.alert').mark") == "the same node"
    assert "3 alerts firing" in page.title()
    stage.alert(
        "resolved",
        region="ap-south",
        severity="warning",
        ago=0,
        fired_at=stage.now - 1,
        resolved_at=stage.now,
    )
    stage.publish()
    expect(new).to_have_count(0)
    expect(page.locator("#over li", has_text="ap-south")).to_be_visible()
    expect(page.locator("[aria-live=polite]")).to_have_text("One alert is over.")


def test_a_place_on_the_page_is_kept_while_it_changes(
    board: Any, stage: Any, visit: Callable[..., Page]
) -> None:
    page = visit(board, 375)
    page.locator("#spend").scroll_into_view_if_needed()
    heading = page.locator("#spend-title")
    before = heading.bounding_box()
    stage.alert(region="ap-south", ago=1)
    stage.publish()
    expect(page.locator("article.alert", has_text="ap-south")).to_have_count(1)
    after = heading.bounding_box()
    assert before and after and abs(before["y"] - after["y"]) < 2


def test_a_chart_says_the_value_under_the_pointer(shared_board: Any, visit: Callable[..., Page]) -> None:
    page = visit(shared_board)
    figure = opened(page.locator("article.alert").first).locator("figure")
    figure.locator(".live canvas").first.wait_for()
    figure.locator(".plot").hover()
    expect(figure.locator(".read")).to_have_text(
        re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d UTC: observed [\d,]+, bound 4,096$")
    )


def test_a_board_that_is_gone_is_said_on_the_page_that_is_still_open(board: Any, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(board.url)
    board.stop()
    lost = page.get_by_role("alert")
    expect(lost).to_be_visible()
    expect(lost).to_contain_text("The board does not answer. What is below is as of")
    context.close()


def test_a_pipeline_that_dies_is_said_on_the_page_that_is_open(
    board: Any, stage: Any, visit: Callable[..., Page]
) -> None:
    page = visit(board)
    expect(page.locator("#problems")).to_have_count(0)
    stage.close()
    expect(page.locator("h1")).to_contain_text("The pipeline has been dead since")
    assert page.title().startswith("STALE")


@pytest.mark.parametrize("size", SIZES)
def test_without_a_script_the_page_is_whole(shared_board: Any, visit: Callable[..., Page], size: str) -> None:
    page = visit(shared_board, SIZES[size], java_script_enabled=False)
    first = page.locator("article.alert").first
    expect(first.locator("svg path.observed")).not_to_be_visible()
    opened(first)
    expect(first.locator("svg path.observed")).to_be_visible()
    expect(first).to_contain_text("least 3,900 GPUs at")
    first.locator("details details summary").click()
    expect(first.locator("pre")).to_be_visible()
    assert page.locator("noscript meta[http-equiv=refresh]").count() or "refresh" in page.content()


def test_all_of_it_can_be_reached_by_keyboard_and_the_focus_is_seen(
    shared_board: Any, visit: Callable[..., Page]
) -> None:
    page = visit(shared_board)
    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["y"] >= 0, "seen while it has the focus"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = page.locator("article.alert").first
    expect(first.locator("summary.line")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(first.locator("a").first).to_be_focused()
    first.locator("details details summary").focus()
    page.keyboard.press("Enter")
    assert first.locator("details details").evaluate("one => one.open")


def test_six_alerts_fit_a_phone_and_two_hundred_are_a_few_lines(
    stage: Any, open_board: Callable[..., Any], visit: Callable[..., Page]
) -> None:
    for n in range(6):
        stage.alert(region=f"region-{n}", labels={"site": f"ams-{n}", "cluster": f"ams-h{n}"})
    stage.publish()
    page = visit(open_board(stage.data), 390)
    lines = page.locator("#alerts .line")
    expect(lines).to_have_count(6)
    bottom = lines.last.bounding_box()
    assert bottom and bottom["y"] + bottom["height"] <= 2 * 844
    for n in range(194):
        stage.alert(severity="warning", labels={"clause": f"floor-{n % 8}", "cluster": f"fra-h{n}"})
    stage.publish()
    expect(page.locator("#alerts > article, #alerts > .group")).to_have_count(9)
    expect(page.locator("#alerts article")).to_have_count(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    folded = page.locator("#alerts .group").last
    expect(folded.locator("article").first).not_to_be_visible()
    folded.locator("summary.line").first.click()
    expect(opened(folded.locator("article").first).locator("dl")).to_be_visible()


def test_a_link_to_an_alert_opens_it_and_one_to_an_old_alert_says_so(
    shared_board: Any, visit: Callable[..., Page]
) -> None:
    page = visit(shared_board)
    second = page.locator("article.alert").nth(1)
    anchor = second.get_attribute("id")
    expect(second.locator("dl")).not_to_be_visible()
    page.goto(f"{shared_board.url}#{anchor}")
    expect(second.locator("dl")).to_be_visible()
    expect(page.locator("#missing")).not_to_be_visible()
    page.goto(f"{shared_board.url}#alert-000000000000")
    expect(page.locator("#missing")).to_contain_text("is not on this page: it ended more than 24 hours ago")


def test_behind_a_proxy_with_a_path_of_its_own_an_alerts_link_opens_its_card(
    board: Any, stage: Any, browser: Browser
) -> None:
    context, outside = browser.new_context(), "https://noc.example/gigawatch"
    page = context.new_page()

    def forward(route: Route) -> None:
        path = route.request.url.removeprefix(outside)
        route.fulfill(response=route.fetch(url=f"{board.url}{path}", headers={}))

    page.route(f"{outside}/**", forward)
    page.goto(f"{outside}/")
    anchor = page.locator("article.alert", has_text="eu-west").get_attribute("id")
    page.goto(f"{outside}/#{anchor}")
    expect(page.locator(f"#{anchor} dl")).to_be_visible()
    expect(page.locator(f"#{anchor} .since")).to_have_text(re.compile(r"^\d+m$"))
    assert (
        page.locator(f"#{anchor} .severity").evaluate("one => getComputedStyle(one).borderRadius") == "99px"
    )
    stage.alert(region="ap-south", ago=1)
    stage.publish()
    expect(page.locator("article.alert", has_text="ap-south")).to_be_visible()
    context.close()

"""The report in a real browser: Debian's Chromium, from file://, with real key presses and clicks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
from etr_ros import result_files
from etr_ros.report.page import write_report
from etr_ros.result import Result
from report_maker import laps, loop_result, place_result
from result_maker import made_result

PROGRAM = chromium.find()
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="there is no chromium (Debian: apt install chromium)"),
    pytest.mark.timeout(600),  # a browser starts slowly on a busy machine
]
EVIL = "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>"
ROWS = "document.querySelectorAll('#list tbody tr').length"
DIALOG = "document.getElementById('pair')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    assert PROGRAM
    with chromium.browser(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    loop_result(folder / "result", laps(45))
    write_report(folder / "result", folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(browser: chromium.Page, report: Path) -> Iterator[chromium.Page]:
    browser.resize(1200, 900)
    browser.prefer("light")
    browser.problems.clear()
    browser.open(report)
    browser.wait("document.querySelector('#map .entry')")
    yield browser
    assert browser.problems == []  # no error, no warning, no request


def test_a_click_on_the_map_opens_the_pair_with_its_matches(page: chromium.Page) -> None:
    mark = "document.querySelector('#map .entry.right:last-of-type > g')"
    page.click(mark)
    page.wait(f"{DIALOG}.open && {DIALOG}.querySelectorAll('.agree').length >= 20")
    assert page.run(f"{DIALOG}.querySelectorAll('image').length") == 2
    shown = page.run(f"{DIALOG}.textContent")
    assert "accepted, and right" in shown and "Match probability" in shown and "Relative pose is off by" in shown
    page.wait(f"[...{DIALOG}.querySelectorAll('image')].every(i => i.getBoundingClientRect().width > 300)")
    page.click(f"{DIALOG}.querySelector('[aria-label=Close]')")
    assert not page.run(f"{DIALOG}.open")


def test_a_rejected_pair_says_why(page: chromium.Page) -> None:
    page.click("document.querySelector('#list tr .rejected, #list tr .missed').closest('tr').querySelector('button')")
    page.wait(f"{DIALOG}.open")
    assert "Rejected: " in page.run(f"{DIALOG}.textContent")


def test_filters(page: chromium.Page) -> None:
    total = page.run(ROWS)
    right = page.run("document.querySelectorAll('#list .right').length")
    assert page.run("document.querySelectorAll('#map .entry.right').length") == right > 0
    page.click("document.querySelector('input[name=verdict][value=right]').closest('label')")
    assert page.run(ROWS) == total - right
    assert page.run("document.querySelectorAll('#map .entry.right').length") == 0
    assert page.run("document.getElementById('count').textContent") == f"{total - right} of {total} pairs"
    page.click("document.getElementById('reset')")
    assert page.run(ROWS) == total
    page.click("document.querySelector('input[name=answer][value=accepted]').closest('label')")
    assert page.run("document.querySelectorAll('#list tr:not(:has(.why))').length") == 1  # the head
    page.click("document.getElementById('reset')")
    page.click("document.querySelector('input[name=state][value=localized]').closest('label')")
    assert 0 < page.run(ROWS) < total
    page.click("document.getElementById('reset')")
    page.click("document.getElementById('text')")
    page.type("BELOW")
    found = page.run("[...document.querySelectorAll('#list tbody tr')].map(row => row.textContent)")
    assert 0 < len(found) < total and all("below" in text for text in found)
    page.type(" nowhere")
    assert "No pair passes" in page.run("document.getElementById('list').textContent")


def test_keys_reach_everything(page: chromium.Page) -> None:
    def focus() -> str:
        return str(page.run("document.activeElement.id || document.activeElement.closest('[id]')?.id"))

    met = []
    for _ in range(40):
        page.press("Tab")
        met.append(focus())
        if page.run("document.activeElement === document.querySelector('#map svg')"):
            break
    assert {"verdicts", "answers", "states", "text", "layouts", "zoom-in"} <= set(met)
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run("document.activeElement.getAttribute('aria-activedescendant')") == "e1"
    page.press("Enter")
    page.wait(f"{DIALOG}.open")
    assert "2 of " in page.run(f"{DIALOG}.querySelector('h2').textContent")
    page.press("ArrowRight")
    assert "3 of " in page.run(f"{DIALOG}.querySelector('h2').textContent")
    page.press("ArrowLeft")
    assert "2 of " in page.run(f"{DIALOG}.querySelector('h2').textContent")
    page.press("Escape")
    page.wait(f"!{DIALOG}.open")
    assert page.run("document.activeElement === document.querySelector('#map svg')")
    page.press("+")
    before = page.run("document.querySelector('#map .path').getBoundingClientRect().width")
    page.press("0")
    assert page.run("document.querySelector('#map .path').getBoundingClientRect().width") < before
    page.press("Tab")
    page.press("ArrowDown")
    assert page.run("document.activeElement.closest('tr').dataset.row") == "2"
    page.press("Enter")
    page.wait(f"{DIALOG}.open")


def test_positions_by_time_and_odometry(page: chromium.Page) -> None:
    names = page.run("[...document.querySelectorAll('#layouts button')].map(button => button.textContent)")
    assert names == ["true path", "odometry", "time"]
    before = page.run("document.querySelectorAll('#map .entry').length")
    for number in (1, 2):
        page.click(f"document.querySelectorAll('#layouts button')[{number}]")
        assert page.run("document.querySelectorAll('#map .entry').length") == before


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_window(page: chromium.Page, width: int) -> None:
    page.resize(width, 740)
    page.wait(f"document.querySelector('#map svg').getBoundingClientRect().width < {width}")
    page.run("document.querySelectorAll('details').forEach(each => (each.open = true))")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.click("document.querySelector('#list tbody button')")
    page.wait(f"{DIALOG}.querySelector('.pictures')")
    assert page.run(f"{DIALOG}.scrollWidth <= {DIALOG}.clientWidth")


def test_dark_and_light_are_readable(page: chromium.Page) -> None:
    """Text against its background has at least the contrast 4.5 (WCAG AA), a mark of a verdict 3."""
    script = """(selector => {
      const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).map(Number)
          .map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const node = document.querySelector(selector);
      let behind = node;
      const fill = () => getComputedStyle(behind).backgroundColor;
      while (/rgba\\(.*, 0\\)|transparent/.test(fill())) behind = behind.parentElement;
      const both = [light(getComputedStyle(node).color), light(fill())];
      return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    })"""
    backgrounds = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        backgrounds.add(page.run("getComputedStyle(document.body).backgroundColor"))
        for selector in ("h1", ".recorded", ".note", ".protocol", "figcaption", "td", ".why", "summary"):
            assert page.run(f"{script}('{selector}')") >= 4.5, (scheme, selector)
        for verdict in ("right", "missed"):
            assert page.run(f"{script}('#list .{verdict}')") >= 3, (scheme, verdict)
    assert len(backgrounds) == 2


def test_what_a_screen_reader_meets(page: chromium.Page) -> None:
    met = page.accessible()
    roles = {role for role, _ in met}
    assert {"heading", "listbox", "option", "table", "row", "radio", "checkbox", "searchbox", "image"} <= roles
    names = {name for role, name in met if role in ("image", "listbox", "option")}
    assert any(name.startswith("Precision-recall curve") for name in names)
    assert any(name.startswith("right: at 0:") for name in names)
    for role, name in met:
        if role in ("button", "checkbox", "radio", "searchbox", "listbox", "option", "image"):
            assert name, role


def test_localization_shows_the_map_and_what_is_not_in_it(browser: chromium.Page, tmp_path: Path) -> None:
    result = place_result(tmp_path / "r", tmp_path / "map", laps(50))
    write_report(tmp_path / "r", tmp_path / "r.html")
    browser.problems.clear()
    browser.resize(1200, 900)
    browser.open(tmp_path / "r.html")
    browser.wait("document.querySelector('#map .entry') && document.querySelector('#map .place')")
    tiles = browser.run("[...document.querySelectorAll('.tile dt')].map(name => name.textContent)")
    assert {"Localized", "Wrong places", "UNKNOWN recall", "UNKNOWN precision", "Recall@1"} <= set(tiles)
    states = result.manifest["counts"]["states"]
    assert browser.run(ROWS) == sum(states.values()) > states["localized"]
    for state in (name for name, count in states.items() if count and name != "unknown"):
        browser.click(f"document.querySelector('input[name=state][value={state}]')?.closest('label')")
    unknown = browser.run("[...document.querySelectorAll('#list tbody tr')].map(row => row.textContent)")
    assert len(unknown) == states["unknown"] > 0
    assert all(text.startswith(("missed", "rejected")) for text in unknown)
    browser.click("document.getElementById('reset')")
    browser.click("document.querySelector('#list .right').closest('tr').querySelector('button')")
    browser.wait(f"{DIALOG}.open && {DIALOG}.querySelectorAll('.agree').length >= 20")
    assert browser.run(f"{DIALOG}.querySelectorAll('image').length") == 2  # the second one is the map's
    assert "accepted, and right" in browser.run(f"{DIALOG}.textContent")
    browser.press("Escape")
    browser.resize(360, 740)
    browser.wait("document.querySelector('#map svg').getBoundingClientRect().width < 360")
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.problems == []


def test_names_from_outside_do_nothing(browser: chromium.Page, tmp_path: Path) -> None:
    made = made_result()
    queries = (dataclasses.replace(made.queries[0], name=EVIL), *made.queries[1:])
    loops = tuple(dataclasses.replace(loop, reason="" if loop.accepted else EVIL) for loop in made.loops)
    manifest = {**made.manifest, "bag": {"name": EVIL}, "config": {EVIL: EVIL}}
    result_files.write(tmp_path / "r", Result(manifest, queries, loops, (EVIL,)))
    write_report(tmp_path / "r", tmp_path / "r.html")
    browser.problems.clear()
    browser.open(tmp_path / "r.html")
    browser.wait("document.querySelector('#list .why')")
    browser.click("document.querySelector('#list tbody tr:last-child button')")
    browser.wait(f"{DIALOG}.open")
    assert EVIL in browser.run(f"{DIALOG}.textContent") and EVIL in browser.run(
        "document.querySelector('h1').textContent"
    )
    assert browser.run("window.broken === undefined && document.querySelectorAll('img').length === 0")
    assert browser.problems == []


def test_an_empty_result_is_a_page_too(browser: chromium.Page, tmp_path: Path) -> None:
    result_files.write(tmp_path / "r", Result({"mode": "localization"}, ()))
    write_report(tmp_path / "r", tmp_path / "r.html")
    browser.problems.clear()
    browser.open(tmp_path / "r.html")
    assert "holds no picture" in browser.run("document.querySelector('h2').textContent")
    assert "No pairs" in browser.run("document.getElementById('list').textContent")
    assert browser.problems == []


def test_without_poses_the_pairs_lie_by_time(browser: chromium.Page, tmp_path: Path) -> None:
    loop_result(tmp_path / "r", laps(30), has_truth=False, has_odometry=False)
    write_report(tmp_path / "r", tmp_path / "r.html")
    browser.problems.clear()
    browser.open(tmp_path / "r.html")
    browser.wait("document.querySelector('#map .entry')")
    assert browser.run("[...document.querySelectorAll('#layouts button')].map(b => b.textContent)") == ["time"]
    browser.click("document.querySelector('#list tbody button')")
    browser.wait(f"{DIALOG}.querySelector('.pictures')")
    browser.press("Escape")
    assert browser.problems == []

"""Pages in a real browser: nothing is asked of anybody, everything can be read and reached.

Pictures of them stay in build/pages/, for a person to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.page.document import FleetPage
from corral.page.html import fleet_html
from corral.page.page_server import Address, PageServer
from corral.rollout.page import page as rollout_page
from tests.browser import Browser, browser
from tests.samples import ROOT
from tests.unit.page.samples import fleet, rollout_of_three, said_everywhere

pytestmark = pytest.mark.slow

PICTURES = ROOT / "build" / "pages"
TEMPLATES = ROOT / "templates"
PHONE, DESK = 360, 1280
TAB, ENTER, SPACE = ("Tab", 9), ("Enter", 13), (" ", 32)
HOSTILE = (
    "</style></title><script>window.owned = 1; alert(1)</script>"
    "\"'><img src=http://127.0.0.1:9/x onerror=alert(2)><svg onload=alert(3)>"
    "\u202e\x1b[2J {{ 7 * 7 }} {% raw %}" + "x" * 3000
)

# Ratio by WCAG 2.2, 1.4.3: of each text with what is behind it, and of bars with their track.
CONTRAST = """
(() => {
  const light = (colour) => {
    const parts = colour.match(/[0-9.]+/g).map(Number);
    if (parts.length > 3 && parts[3] < 1) return null;
    const [r, g, b] = parts.map((one) => one / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = light(getComputedStyle(one).backgroundColor);
      if (found !== null) return found;
    }
    return null;
  };
  const weak = [];
  let texts = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest("script, noscript")) continue;
    texts += 1;
    const found = ratio(light(getComputedStyle(element).color), behind(element));
    if (!(found >= 4.5)) weak.push(`${walk.currentNode.data.slice(0, 40)}: ${found.toFixed(2)}`);
  }
  for (const bar of document.querySelectorAll("svg.bar")) {
    const track = light(getComputedStyle(bar.querySelector(".track")).fill);
    for (const part of bar.querySelectorAll(".held, .kept, .failed, .reverted, .open")) {
      const found = ratio(light(getComputedStyle(part).fill), track);
      if (!(found >= 3)) weak.push(`bar ${part.getAttribute("class")}: ${found.toFixed(2)}`);
    }
  }
  return { texts, weak };
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def shown(tab: Browser, folder: Path, text: str, *, width: int = DESK, dark: bool = False) -> str:
    """Show a page as a file; returns its address."""
    path = folder / "page.html"
    path.write_text(text)
    tab.look(width=width, dark=dark)
    tab.open(path.as_uri())
    return path.as_uri()


def text_of(page: FleetPage) -> str:
    return fleet_html(page, TEMPLATES)


def opened(tab: Browser) -> None:
    """Open all that can be opened, so that its text is looked at, too."""
    tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


PAGES: dict[str, Callable[[], str]] = {
    "fleet": lambda: text_of(fleet()),
    "rollout": lambda: rollout_page(rollout_of_three(), TEMPLATES),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_anywhere_and_asks_nothing(
    tab: Browser, tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    address = shown(tab, tmp_path, PAGES[name](), width=width, dark=dark)
    tab.screenshot(PICTURES / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    opened(tab)
    found = tab.run(CONTRAST)
    assert found["texts"] > 50
    assert found["weak"] == []
    assert tab.run("document.documentElement.scrollWidth") == width
    assert (tab.requests, tab.complaints) == ([address], [])


def test_weak_contrast_is_seen(tab: Browser, tmp_path: Path) -> None:
    shown(tab, tmp_path, text_of(fleet()).replace("--soft: #545d68", "--soft: #a0a8b0"))
    assert tab.run(CONTRAST)["weak"]


def test_dark_is_another_page_than_light(tab: Browser, tmp_path: Path) -> None:
    colours = []
    for dark in (False, True):
        shown(tab, tmp_path, text_of(fleet()), dark=dark)
        colours.append(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(243, 245, 248)", "rgb(13, 17, 23)"]


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_hostile_text_stays_text(tab: Browser, tmp_path: Path, width: int) -> None:
    address = shown(tab, tmp_path, text_of(said_everywhere(HOSTILE)), width=width)
    opened(tab)
    assert (tab.requests, tab.complaints, tab.dialogs) == ([address], [], [])
    assert tab.run("typeof window.owned") == "undefined"
    assert tab.run("document.querySelectorAll('script, img, [onload], [onerror]').length") == 0
    text = tab.run("document.body.textContent")
    assert "\\u202e\\x1b[2J {{ 7 * 7 }} {% raw %}" in text
    assert not set(text) & {"\u202e", "\x1b"}
    assert text.count("<script>window.owned = 1") > 40
    assert tab.run("document.documentElement.scrollWidth") == width
    tab.screenshot(PICTURES / f"hostile-{width}.png")


def test_all_that_opens_is_reached_by_keyboard_in_the_order_of_the_page(
    tab: Browser, tmp_path: Path
) -> None:
    shown(tab, tmp_path, text_of(fleet()))
    wanted = tab.run("[...document.querySelectorAll('a, summary')].map((one) => one.innerText)")
    assert len(wanted) == 4 + 4
    reached, seen = [], []
    for _ in wanted:
        tab.press(*TAB)
        reached.append(tab.run("document.activeElement.innerText"))
        seen.append(tab.run("getComputedStyle(document.activeElement).outlineWidth"))
    assert reached == wanted
    assert set(seen) == {"3px"}
    for key in (ENTER, SPACE):
        was = tab.run("document.activeElement.parentElement.open")
        tab.press(*key)
        assert tab.run("document.activeElement.parentElement.open") is not was


def test_a_link_leads_to_its_host(tab: Browser, tmp_path: Path) -> None:
    shown(tab, tmp_path, text_of(fleet()))
    for _ in range(3):
        tab.press(*TAB)
    tab.press(*ENTER)
    assert tab.run("document.querySelector(':target h2').innerText") == "gpu-03"


def test_every_cell_has_its_heading_where_a_phone_hides_the_heads(
    tab: Browser, tmp_path: Path
) -> None:
    for text in (page() for page in PAGES.values()):
        shown(tab, tmp_path, text, width=PHONE)
        assert tab.run(
            "[...document.querySelectorAll('tbody tr')].every((row) => [...row.cells].every("
            "(cell) => cell.dataset.name && getComputedStyle(cell, '::before').content !== 'none'))"
        )


def test_a_served_page_renews_itself_and_keeps_what_a_reader_opened(tab: Browser) -> None:
    first, server = fleet(), PageServer(Address("127.0.0.1", 0))
    server.show(fleet_html(first, TEMPLATES, refresh_seconds=1))
    address = f"http://{server.address.text}/"
    with server.running():
        tab.look()
        tab.open(address)
        tab.run("document.querySelector('#history-gpu-02 summary').focus()")
        tab.press(*ENTER)
        later = first.model_copy(update={"made_at": "2026-11-29T16:59:59Z", "alerts": ()})
        server.show(fleet_html(later, TEMPLATES, refresh_seconds=1))
        tab.wait_for("document.querySelector('time').dateTime === '2026-11-29T16:59:59Z'")
        assert tab.run("document.activeElement.parentElement.id") == "history-gpu-02"
        assert tab.run("[...document.querySelectorAll('details[open]')].map((one) => one.id)") == [
            "history-gpu-02"
        ]
        assert tab.run("document.getElementById('stale').hidden")
        assert set(tab.requests) == {address}
        assert tab.complaints == []
    tab.wait_for("!document.getElementById('stale').hidden")


def test_a_served_page_runs_nothing_that_is_not_its_own(tab: Browser) -> None:
    server = PageServer(Address("127.0.0.1", 0))
    text = fleet_html(fleet(), TEMPLATES, refresh_seconds=60)
    server.show(text)
    # As if a value were not escaped: the policy is of the page as it was made.
    server._shown = (text.replace("<main>", "<main><i onclick='x'></i><script>window.owned = 1"
                                  "</script>").encode(), server._shown[1])  # fmt: skip
    with server.running():
        tab.open(f"http://{server.address.text}/")
        assert tab.run("typeof window.owned") == "undefined"
        assert any("Content Security Policy" in one for one in tab.complaints)

"""The report page: complete, well-formed, escaped, and honest about time."""

import re
from html.parser import HTMLParser

from models.status import Phase, RunState
from starter.report import CHART_WIDTH, chart, render_report
from tests.starter import samples

_VOID = {"meta", "br", "rect"}


class Checker(HTMLParser):
    """Collects tags, attributes and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"


def page(state: RunState) -> str:
    return render_report(state, now=samples.at(600))


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def test_every_phase_gives_a_well_formed_page() -> None:
    for phase in Phase:
        checked(page(samples.run_state(phase)))


def test_a_run_that_has_just_begun_gives_a_page() -> None:
    state = RunState(spec=samples.run_state().spec, run_id="abc")
    text = page(state)
    checked(text)
    assert "No round was run." in text


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs() -> None:
    text = page(samples.run_state())
    checker = checked(text)
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert not checker.seen & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not [name for name, _ in checker.attributes if name in ("src", "href")]
    assert not [name for name, _ in checker.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text


def test_hostile_text_is_shown_and_never_obeyed() -> None:
    text = page(samples.run_state(Phase.VALIDATING))
    assert samples.HOSTILE not in text
    assert text.count("&lt;script&gt;") >= 6
    assert "&amp;amp;" in text


def test_bytes_downtime_roots_and_words_are_on_the_page() -> None:
    text = page(samples.run_state())
    for expected in (
        "app01 is home.",
        "10.0 s",  # predicted
        "8.0 s",  # measured
        "2.0 GiB",  # read over both rounds
        "1.5 GiB",  # written and zeroed
        "root-2",
        "FB-CHK-X",
        "2026-11-22 10:00:00 UTC",
        "vm-1 in resource group rg-1 (Azure)",
    ):
        assert expected in text, expected
    assert "root-1" not in text, "only the newest root of a disk proves anything"


def test_bars_stay_inside_the_chart_even_when_clocks_differ() -> None:
    state = samples.run_state()
    state.downtime.began_at = samples.at(-5)
    state.downtime.ended_at = samples.at(9000)
    drawn = chart(state, samples.at(600))
    assert drawn is not None
    for bar in (*drawn.phases, *drawn.rounds, *drawn.downtime):
        assert bar.x >= 0
        assert bar.width > 0
        assert bar.x + bar.width <= CHART_WIDTH + 0.01


def test_a_phase_that_goes_on_ends_now_and_an_ended_run_does_not_grow() -> None:
    going = chart(samples.run_state(Phase.READY), samples.at(600))
    ended = chart(samples.run_state(Phase.COMPLETED), samples.at(99999))
    assert going is not None
    assert ended is not None
    assert going.ended == "2026-11-22 10:10:00 UTC"
    assert ended.ended == "2026-11-22 10:04:00 UTC"


def test_light_dark_and_print_are_styled() -> None:
    text = page(samples.run_state())
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert re.search(r'<html lang="en">', text)

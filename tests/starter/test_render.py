"""What people see on a terminal, and what programs read."""

import io

import pytest
from rich.console import Console, RenderableType

from models.calls import DoctorReport
from models.machine import Leftover
from models.status import (
    DiskProgress,
    Effect,
    EffectKind,
    EffectState,
    Phase,
    PhaseEntry,
    Round,
)
from starter import live, page, render
from starter.commands.look import reached
from starter.runs import Observation
from tests.starter import samples


def text_of(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200, highlight=False).print(what)
    return out.getvalue()


def seen(phase: Phase = Phase.SYNCING, **more: object) -> Observation:
    state = samples.run_state(phase)
    progress = [
        DiskProgress(
            disk_id="os", stage="copying", bytes_total=1000, bytes_done=456, rate=100 * 2**20
        )
    ]
    return Observation(samples.BEGIN, state.model_copy(update=more), progress)


def test_the_page_of_a_run_shows_direction_numbers_and_hostile_text_as_it_is() -> None:
    text = text_of(page.state_page(samples.run_state()))
    for expected in (
        "Azure → on-premises",
        "vm-1 in resource group rg-1",
        "measured 8.0 s",
        "[bold]&amp;",
        "FB-CHK-X",
        "root-2",
        "fb-abc123-r1-os",
    ):
        assert expected in text, expected


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_can_be_shown_followed_and_streamed(phase: Phase) -> None:
    observation = seen(phase)
    assert "app01" in text_of(live.picture(observation))
    assert live.line(observation).startswith(f"app01: {phase.value.replace('_', ' ')}")
    assert live.document(observation)["phase"] == phase.value
    assert text_of(page.state_page(samples.run_state(phase)))


def test_the_live_view_shows_bars_rates_and_what_may_be_said() -> None:
    text = text_of(live.picture(seen()))
    assert "46%" in text
    assert "100.0 MiB/s" in text
    assert "predicted 10.0 s" in text
    assert "failback retry app01" in text
    assert "run-failover" in text


def test_the_live_view_names_a_round_that_runs() -> None:
    running = [samples.finished(1), Round(number=2, started_at=samples.at(90))]
    assert "2 runs; last one read 1.0 GiB" in text_of(live.picture(seen(rounds=running)))


def test_before_the_first_answer_the_live_view_says_what_is_missing() -> None:
    nothing = Observation(samples.BEGIN, None, problem="No control worker is polling.")
    assert "No control worker" in text_of(live.picture(nothing))
    assert "No control worker" in live.line(nothing)
    assert live.document(nothing)["problem"] == "No control worker is polling."


def test_plain_lines_change_with_tenths_of_progress_only() -> None:
    first, second = seen(), seen()
    second.progress[0].bytes_done = 480
    assert live.line(first) == live.line(second)
    second.progress[0].bytes_done = 500
    assert live.line(first) != live.line(second)


def test_choices_of_a_blocked_run_are_commands_to_copy() -> None:
    state = samples.run_state(Phase.VALIDATING)
    assert page.choice_commands(state) == [
        "failback retry app01",
        "failback abort app01",
        "failback commit app01 --override",
    ]
    state.effects.append(
        Effect(
            name="m",
            kind=EffectKind.MACHINE_STARTED,
            state=EffectState.DONE,
            at=samples.BEGIN,
        )
    )
    assert "failback abort app01 --discard-onprem-changes" in page.choice_commands(state)


def test_commit_names_what_it_deletes_and_nothing_else() -> None:
    text = text_of(render.deletions(samples.cloud(), samples.run_state().spec))
    assert "vm-1" in text
    assert "disk-os" in text
    assert "nic-goes" in text
    assert "nic-stays" not in text


def test_leftovers_that_were_removed_are_marked() -> None:
    one = Leftover(kind="snapshot", name="a[b]", place="rg", run_id="r")
    two = Leftover(kind="snapshot", name="c", place="rg", run_id="r")
    report = DoctorReport(leftovers=[one, two], removed=[two], problems=["cloud: [no]"])
    lines = text_of(render.doctor_table(report)).splitlines()
    assert [("removed" in line) for line in lines if "snapshot" in line] == [False, True]
    assert any("[no]" in line for line in lines)


def test_a_phase_is_reached_when_it_is_passed_but_not_by_turning_back() -> None:
    state = samples.run_state(Phase.SHUTTING_DOWN)
    assert reached(state, Phase.READY)
    assert not reached(state, Phase.COMPLETED)
    back = samples.run_state(Phase.ROLLING_BACK)
    back.timeline = [PhaseEntry(phase=Phase.SYNCING, at=samples.BEGIN)]
    assert reached(back, Phase.SYNCING)
    assert not reached(back, Phase.READY)
    assert reached(back, Phase.ROLLING_BACK)

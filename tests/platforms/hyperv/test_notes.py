"""Marks in a machine's notes are found again, and leave what people wrote as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.hyperv.notes import (
    Attachment,
    Creation,
    attachments,
    birth_name,
    created_disks,
    creation,
    disk_line,
    run_of,
    with_lines,
    without_lines,
)

PATHS = ["D:\\vm\\a b.vhdx", "D:\\vm\\Wärme's.vhd", "C:\\ClusterStorage\\V1\\x.vhdx"]


def test_marks_are_read_back() -> None:
    marks = [Attachment("run-1", "web01", path) for path in PATHS]
    notes = with_lines(
        "Call Anna before you touch this.",
        [
            Creation("run-1", "web01").line,
            *(disk_line(p) for p in PATHS),
            *(m.line for m in marks),
        ],
    )
    assert creation(notes) == Creation("run-1", "web01")
    assert created_disks(notes) == PATHS
    assert attachments(notes) == marks


@pytest.mark.parametrize(
    "notes", ["", "one line", "two\r\nlines", "unix\nlines\n", "\r\n", "ends\r\n\r\n", "failback-"]
)
def test_notes_of_people_come_back_to_the_last_character(notes: str) -> None:
    lines = [Attachment("run", "web01", path).line for path in PATHS]
    marked = with_lines(notes, lines)
    assert with_lines(marked, lines) == marked
    assert without_lines(marked, lines) == notes
    assert without_lines(marked, list(reversed(lines))) == notes


@given(st.text(alphabet="ab \r\n-:", max_size=40))
def test_any_notes_come_back(notes: str) -> None:
    if "\r" in notes.replace("\r\n", ""):
        notes = notes.replace("\r", "")
    lines = [Attachment("run", "web01", path).line for path in PATHS]
    assert without_lines(with_lines(notes, lines), lines) == notes


def test_a_line_that_another_begins_with_stays() -> None:
    short, long = disk_line("D:\\a.vhd"), disk_line("D:\\a.vhdx")
    assert without_lines(with_lines("", [long, short]), [short]) == long
    assert without_lines(with_lines("", [short, long]), [short]) == long


def test_another_runs_lines_stay() -> None:
    mine, other = Attachment("run", "m", "D:\\a.vhdx"), Attachment("run2", "m", "D:\\a.vhdx")
    notes = with_lines("", [mine.line, other.line])
    assert attachments(without_lines(notes, [mine.line])) == [other]


def test_birth_names_are_fit_for_folders() -> None:
    assert birth_name("a:b/c d") == "failback-a-b-c-d"
    assert run_of(birth_name("0190-7f")) == "0190-7f"
    assert run_of("web01") is None

"""The exit statuses of `failback`, stable for scripts. Errors bring their own (models.errors);
these are the ones that are no error of the tree."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
ROLLED_BACK = 8
INTERRUPTED = 130

MEANING = {
    0: "done; for `watch` and `start --wait`: the failback completed",
    1: "an error without a status of its own, or a question answered with no",
    2: "wrong usage, spec or configuration; nothing was touched",
    3: "rejected: not allowed in the run's present phase, or a run goes on already",
    4: "no such run",
    5: "a preflight check failed; nothing was touched",
    6: "Temporal or the control worker does not answer",
    7: "doctor found leftovers",
    8: "the failback was rolled back; both sides are as they were",
    130: "interrupted at the keyboard; the run itself goes on",
}
"""What each status says, for the help and the documentation."""

"""A list of preflight checks in the making."""

from __future__ import annotations

from models.machine import CheckResult, Verdict

PREFIX = "FB-CHK-HYPERV-"


class Checks:
    """Collects results; a check that could not be made because of an earlier one is not listed."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []

    def passed(self, name: str, seen: str) -> None:
        """The check holds."""
        self.results.append(CheckResult(name=name, verdict=Verdict.PASSED, seen=seen))

    def warning(self, name: str, code: str, seen: str, advice: str) -> None:
        """Something to know, which forbids nothing."""
        self._add(name, Verdict.WARNING, code, seen, advice)

    def failed(self, name: str, code: str, seen: str, advice: str) -> None:
        """The failback cannot start like this."""
        self._add(name, Verdict.FAILED, code, seen, advice)

    def decide(self, name: str, code: str, wrong: list[str], right: str, advice: str) -> None:
        """Failed with everything that is wrong, or passed."""
        if wrong:
            self.failed(name, code, "; ".join(wrong), advice)
        else:
            self.passed(name, right)

    def _add(self, name: str, verdict: Verdict, code: str, seen: str, advice: str) -> None:
        self.results.append(
            CheckResult(name=name, verdict=verdict, code=PREFIX + code, seen=seen, advice=advice)
        )

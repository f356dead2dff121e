"""Collecting preflight checks: each has a name, a stable code and a verdict, and one that cannot be
made is a failed check, not the end of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from models.errors import FailbackError, Stopped
from models.machine import CheckResult, Verdict
from platforms.azure.redaction import redacted

_log = logging.getLogger(__name__)


@dataclass
class Finding:
    """What one check saw. Problems make it fail, doubts make it warn."""

    seen: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    advice: str = ""

    @property
    def verdict(self) -> Verdict:
        """Problems before doubts."""
        if self.problems:
            return Verdict.FAILED
        return Verdict.WARNING if self.doubts else Verdict.PASSED


class Checklist:
    """Checks in the order they were made."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []

    def run(self, name: str, code: str, advice: str, check: Callable[[], Finding]) -> bool:
        """Make a check; whether it did not fail.

        Args:
            name: The check's name, as in `azure-power`.
            code: Its stable code, as in `FB-CHK-AZURE-POWER`.
            advice: What to do if it fails or warns, where the finding has none of its own.
        """
        try:
            finding = check()
        except Stopped:
            raise
        except FailbackError as error:
            finding = Finding(problems=[error.message], advice=error.hint or advice)
        except ValueError as error:
            # An answer that is not Azure's, such as a proxy's page, or an id that is none.
            finding = Finding(problems=[f"the answer makes no sense: {redacted(str(error))}"])
        words = finding.problems + finding.doubts or finding.seen
        clean = finding.verdict is Verdict.PASSED
        self.results.append(
            CheckResult(
                name=name,
                verdict=finding.verdict,
                code="" if clean else code,
                seen="; ".join(words) or "nothing to object to",
                advice=finding.advice or ("" if clean else advice),
            )
        )
        return finding.verdict is not Verdict.FAILED

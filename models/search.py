"""The search attributes of a run, by name: what lists and dashboards filter by. At most four, all
of type Keyword; whoever starts a run sets them, the run keeps the phase up to date."""

from __future__ import annotations

MACHINE = "FailbackMachine"
PHASE = "FailbackPhase"
PLAN = "FailbackPlan"
PLATFORM = "FailbackPlatform"

KEYWORDS = (MACHINE, PHASE, PLAN, PLATFORM)
"""All of them, for registering."""

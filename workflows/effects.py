"""The effects list: what a run changes is written down here before it happens."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from models.machine import Snapshot
    from models.status import Effect, EffectKind, EffectState, RunState

# Undone snapshots of a long `ready` phase are dropped from the list beyond this many.
_UNDONE_KEPT = 50


class Effects:
    """Plans and settles the effects of one run; the workflow's state keeps them."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def plan(
        self, name: str, kind: EffectKind, *, disk_id: str = "", snapshot: Snapshot | None = None
    ) -> None:
        """Write an effect down before it happens. A name that stands already is left alone."""
        if any(e.name == name and e.state is not EffectState.UNDONE for e in self._state.effects):
            return
        self._state.effects.append(
            Effect(name=name, kind=kind, disk_id=disk_id, snapshot=snapshot, at=workflow.now())
        )
        undone = [e for e in self._state.effects if e.state is EffectState.UNDONE]
        for effect in undone[:-_UNDONE_KEPT]:
            self._state.effects.remove(effect)

    def settle(self, name: str, state: EffectState) -> None:
        """The effect has happened, was undone, or is kept for good."""
        for effect in self._state.effects:
            if effect.name == name and effect.state is not EffectState.UNDONE:
                effect.state = state

    def keep_all(self) -> None:
        """After commit nothing is undone any more."""
        for effect in self._state.effects:
            if effect.state in (EffectState.PLANNED, EffectState.DONE):
                effect.state = EffectState.KEPT

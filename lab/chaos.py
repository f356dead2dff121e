"""Misbehaviour on request: rules that tell an emulator to throttle, delay, drop, fail or lie.

A rule is one JSON file in ``DIR/chaos``; it takes effect as soon as the file is there and ends when
the file is removed, so tests and people can change the weather under a running emulator. How often
a rule has struck is kept on disk too (one byte per strike), so that "three times" means three times
even when the emulator is killed and started again between the second and the third.

What a strike does is up to the emulator that consults; this module decides whether one happens.

Rule fields (all optional but ``operation`` and ``action``):

=================  =================================================================================
``emulator``       ``azure-arm``, ``azure-data`` or ``hyperv``; a glob; default ``*``
``operation``      glob on the operation, such as ``snapshots.beginGetAccess`` or ``Start-VM``
``resource``       glob on what the operation is about (resource id, blob path, machine name)
``action``         one of :data:`ACTIONS`
``skip``           let that many matching operations pass first (default 0)
``times``          strike at most that often (default: without end)
``probability``    strike with that chance (default 1), from ``seed`` and the strike's number
``status``         HTTP status of ``fail`` and ``throttle``
``code``           error code of ``fail``, ``lro_fail``, ``refuse_shutdown``
``message``        error text
``retry_after``    seconds in the ``Retry-After`` header of ``throttle`` (default 1)
``seconds``        length of ``delay`` and ``hang``
``when``           ``before`` or ``after`` the work: the moment of ``drop``
``bytes``          how much of the body ``short_read`` lets through
``how``            ``short_read``: ``length`` (says so honestly) or ``close`` (promises all, stops)
``offset``         ``lie_unchanged``: byte offset of the range to keep silent about
``length``         ``lie_unchanged``: length in bytes of that range
=================  =================================================================================
"""

from __future__ import annotations

import fnmatch
import json
import os
import random
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACTIONS = frozenset(
    {
        "throttle",
        "boot_failure",
        "delay",
        "drop",
        "fail",
        "lro_fail",
        "no_heartbeat",
        "revoke_sas",
        "refuse_shutdown",
        "hang",
        "lie_unchanged",
        "short_read",
    }
)
# A directory's time stamp has the resolution of the kernel's tick (4 ms or 10 ms): a directory
# changed more recently than this may have changed once more without its stamp showing it.
TIMESTAMP_DOUBT_NS = 50_000_000


class ChaosRuleError(ValueError):
    """A rule that cannot be understood."""


@dataclass(frozen=True)
class Action:
    """A strike: the rule's id and its fields, with the documented defaults filled in."""

    rule_id: str
    kind: str
    status: int | None
    code: str | None
    message: str | None
    retry_after: float
    seconds: float
    when: str
    byte_count: int
    how: str
    offset: int | None
    length: int | None


def add(directory: Path, rule: dict[str, Any]) -> str:
    """Put ``rule`` into force for the emulators of ``directory``; returns its id.

    Raises :class:`ChaosRuleError` if the action is unknown or no operation is given.
    """
    if rule.get("action") not in ACTIONS:
        raise ChaosRuleError(f"unknown action {rule.get('action')!r}; known: {sorted(ACTIONS)}")
    if not rule.get("operation"):
        raise ChaosRuleError("a rule needs an operation, for example 'snapshots.*'")
    rules = directory / "chaos"
    (rules / "hits").mkdir(parents=True, exist_ok=True)
    rule_id = f"{time.time_ns():020d}-{uuid.uuid4().hex[:6]}"
    temporary = rules / f".{rule_id}.new"
    temporary.write_text(json.dumps(rule, indent=1))
    temporary.rename(rules / f"{rule_id}.json")
    return rule_id


def remove(directory: Path, rule_id: str) -> None:
    """End one rule; nothing happens if it is not in force."""
    (directory / "chaos" / f"{rule_id}.json").unlink(missing_ok=True)
    (directory / "chaos" / "hits" / rule_id).unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """End every rule of ``directory``."""
    for rule_id in list_rules(directory):
        remove(directory, rule_id)


def list_rules(directory: Path) -> dict[str, dict[str, Any]]:
    """The rules in force by id, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((directory / "chaos").glob("*.json")):
        try:
            rule = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue  # removed under our eyes, or written by hand and not finished
        if isinstance(rule, dict):
            found[path.stem] = rule
    return found


def hits(directory: Path, rule_id: str) -> int:
    """How many matching operations the rule has seen so far (skipped ones are counted too)."""
    try:
        return (directory / "chaos" / "hits" / rule_id).stat().st_size
    except FileNotFoundError:
        return 0


class Chaos:
    """One emulator's view of the rules; cheap to consult while there are none."""

    def __init__(self, directory: Path, emulator: str) -> None:
        """``directory`` is the lab's; ``emulator`` is the name that rules know this one by."""
        self._directory = directory
        self._emulator = emulator
        self._rules: dict[str, dict[str, Any]] = {}
        self._seen_mtime_ns = -1

    def consult(self, operation: str, resource: str = "") -> Action | None:
        """What should go wrong with this operation now, or ``None``.

        The oldest rule that matches and still has strikes left wins. A match is counted at once, in
        a file, so that concurrent requests and restarts of the emulator cannot strike too often.
        """
        self._refresh()
        for rule_id, rule in self._rules.items():
            if self._matches(rule, operation, resource) and self._strikes(rule_id, rule):
                return _action(rule_id, rule)
        return None

    def in_force(self, rule_id: str) -> bool:
        """Whether a rule is still there; a ``hang`` ends with its rule."""
        return (self._directory / "chaos" / f"{rule_id}.json").exists()

    def _refresh(self) -> None:
        try:
            mtime_ns = (self._directory / "chaos").stat().st_mtime_ns
        except FileNotFoundError:
            self._rules, self._seen_mtime_ns = {}, -1
            return
        if mtime_ns != self._seen_mtime_ns:
            settled = time.time_ns() - mtime_ns > TIMESTAMP_DOUBT_NS
            self._rules = list_rules(self._directory)
            self._seen_mtime_ns = mtime_ns if settled else -1

    def _matches(self, rule: dict[str, Any], operation: str, resource: str) -> bool:
        return (
            fnmatch.fnmatchcase(self._emulator, str(rule.get("emulator", "*")))
            and fnmatch.fnmatchcase(operation.lower(), str(rule.get("operation", "")).lower())
            and fnmatch.fnmatchcase(resource.lower(), str(rule.get("resource", "*")).lower())
        )

    def _strikes(self, rule_id: str, rule: dict[str, Any]) -> bool:
        skip = int(rule.get("skip", 0))
        times = rule.get("times")
        if times is not None and hits(self._directory, rule_id) >= skip + int(times):
            return False
        number = self._count_hit(rule_id)
        if number <= skip or (times is not None and number > skip + int(times)):
            return False
        chance = float(rule.get("probability", 1.0))
        return chance >= 1.0 or random.Random(f"{rule.get('seed', 0)}/{number}").random() < chance

    def _count_hit(self, rule_id: str) -> int:
        # With O_APPEND the position after the write is this strike's own number, whoever else
        # appends at the same time.
        path = self._directory / "chaos" / "hits" / rule_id
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b".")
            return os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)


def _action(rule_id: str, rule: dict[str, Any]) -> Action:
    return Action(
        rule_id=rule_id,
        kind=str(rule["action"]),
        status=int(rule["status"]) if "status" in rule else None,
        code=rule.get("code"),
        message=rule.get("message"),
        retry_after=float(rule.get("retry_after", 1)),
        seconds=float(rule.get("seconds", 3600 if rule["action"] == "hang" else 1)),
        when=str(rule.get("when", "before")),
        byte_count=int(rule.get("bytes", 0)),
        how=str(rule.get("how", "length")),
        offset=int(rule["offset"]) if "offset" in rule else None,
        length=int(rule["length"]) if "length" in rule else None,
    )

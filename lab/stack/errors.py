"""The lab's own error, for everything that a person should read as one message."""

from __future__ import annotations


class LabError(Exception):
    """Something about the lab does not work; the message says what, and what to do."""

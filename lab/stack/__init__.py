"""The lab as a whole: its processes, its command line, and a way in for tests (`Lab`)."""

from lab.stack.errors import LabError
from lab.stack.lab import FailbackFailedError, Lab, RunStuckError

__all__ = ["FailbackFailedError", "Lab", "LabError", "RunStuckError"]

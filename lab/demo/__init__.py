"""The demo: the whole job against the lab, from first check to commit, and proof of the result."""

from lab.demo.run import run

__all__ = ["run"]

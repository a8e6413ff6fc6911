"""Which losses fit a target, and why: from contracts and data alone."""

from lossary.advice.target import TASKS, Target, describe

__all__ = ["TASKS", "Target", "describe"]

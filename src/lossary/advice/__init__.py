"""Which losses fit a target, and why: from contracts and data alone."""

from lossary.advice.recommend import Advice, Candidate, advise
from lossary.advice.target import TASKS, Target, describe

__all__ = ["TASKS", "Advice", "Candidate", "Target", "advise", "describe"]

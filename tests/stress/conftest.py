"""Reliability tests; see :mod:`stress.figures` for what they count and print."""

from tests.stress.figures import tally as tally

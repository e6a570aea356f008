"""Reliability tests; see :mod:`stress.figures` for what they count and print."""

from stress.figures import tally as tally

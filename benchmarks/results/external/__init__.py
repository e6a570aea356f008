"""Predictions that were made elsewhere: read, scored, compared, and added to a suite."""

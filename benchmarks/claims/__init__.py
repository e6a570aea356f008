"""The papers' claims as data, and whether the result rows of a suite bear them out.  No torch."""

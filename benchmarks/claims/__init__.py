"""The papers' claims as data (``claims.toml``), and whether the result rows of a suite bear them out (``decide``).

Change things here when a claim is added (data alone), or when claims need a new kind of test (``model``).  Imports
``results``, ``report`` and the leaves, and no torch.
"""

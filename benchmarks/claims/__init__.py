"""Claims of the papers and of this project as data (``claims.toml``), and whether a suite's rows bear them out.

Change things here when a claim is added (data alone), or when claims need a new kind of test (``model``).  Imports
``results``, ``report`` and the leaves, and no torch.
"""

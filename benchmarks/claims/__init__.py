"""Claims of the papers and of this project, as data (``claims.toml``); whether rows bear them out (``decide``).

Change things here when a claim is added (data alone), or when claims need a new kind of test (``model``).  Imports
``results``, ``report`` and the leaves, and no torch.
"""

"""Where artefacts lie: written whole or not at all, checksummed, content-addressed (``artefacts``).

``storage`` verifies and cleans a store, ``bundle`` carries a part of it to another machine, ``rows`` writes the files
of result rows; ``released`` is what the repository holds for every store to read through to, and ``release`` writes
that.  Change things here when the layout on disk changes.  Imports ``suite`` and the leaves; knows of keys and plans,
not of networks.
"""

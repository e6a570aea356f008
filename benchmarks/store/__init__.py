"""The store: artefacts by key, written whole or not at all, with checksums (``artefacts``).

``storage`` verifies and cleans a store, ``bundle`` carries a part of it to another machine, ``rows`` writes the files
of result rows.  ``released`` reads the results in the repository where a store lacks them, and ``release`` writes them.
Change things here when the layout on disk changes.  Imports ``suite`` and the leaves; knows keys and plans, not
networks.
"""

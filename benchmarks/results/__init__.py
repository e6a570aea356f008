"""From stored predictions to tables: ``scoring``, what pools share (``pools``), comparisons (``pairing``), ``rows``.

``outside`` reads predictions that were made elsewhere.  Change things here when there is a new score or column.
Imports ``store``, ``suite`` and the leaves, and no torch: every number can be computed again without a network.
"""

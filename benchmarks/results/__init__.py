"""From scores of stored predictions to tables: what pools share (``pools``), comparisons (``pairing``), ``rows``.

``outside`` reads predictions that were made elsewhere.  Change things here when there is a new column; scores are a
task's (:mod:`dbn_core.tasks.base`).
Imports ``store``, ``suite`` and the leaves, and no torch: every number can be computed again without a network.
"""

"""From stored predictions to tables: ``rows``, paired comparisons (``pairing``), effects of shared pools (``pools``).

``external`` reads predictions that were made elsewhere.  Change things here when there is a new column; the scores
themselves belong to a task (:mod:`dbn_core.tasks.base`).
Imports ``store``, ``suite`` and the leaves, and no torch: every number can be computed again without a network.
"""

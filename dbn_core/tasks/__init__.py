"""Tasks: ``base`` has their base class, ``classification`` the built-in one.

The tasks of the generative papers are in :mod:`dbn_core.generative.tasks`.
"""

from dbn_core.tasks.base import TASKS

TASKS.add({"classification": "dbn_core.tasks.classification:Classification"})

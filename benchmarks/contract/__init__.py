"""Contract tests over any registered method: ``dbn-bench check``.

Change things here when methods must promise something new: each promise is one function in ``check``, with a sentence
for the author of a plugin that breaks it.  Imports ``work``, whose code paths the tests use.
"""

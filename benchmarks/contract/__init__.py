"""Contract tests over any registered method: ``dbn-bench check``.

Add a check here when methods must promise something new: one function in ``check``, with a sentence for the author of a
plugin that breaks it.  Imports ``work``, whose code paths the tests use.
"""

"""Contract tests over any registered method: ``dbn-bench check``.

Change things here when methods must promise something new: each promise is one function in ``check``, with a sentence
for the author of a plugin who broke it.  Imports ``work``, whose code paths the tests take.
"""

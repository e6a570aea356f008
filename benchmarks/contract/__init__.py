"""Contract tests over any registered method and any network: ``dbn-bench check``, ``dbn-bench check-network``.

Change things here when they must promise something new: each promise is one function in ``check``, ``training`` or
``network``, with a sentence for the author of a plugin that breaks it.  Imports ``work``, whose code paths the tests
use.
"""

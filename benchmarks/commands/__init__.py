"""The commands of ``dbn-bench``: what each does with its parsed options, and what all of them share (``common``).

Change things here when a command is added or says something else.  Imports what it calls inside its functions, so
that ``--help`` and completion stay instant.
"""

"""A trained method as files that run without this package: ``dbn-bench export``.

Change things here when a deployed network needs another file or its card another fact: ``folder`` makes and checks
the networks, ``card`` describes them.  Imports ``work``, whose code builds the predictor, ``results`` and ``report``.
"""

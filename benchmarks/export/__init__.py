"""A trained method as files that run without this package: ``dbn-bench export``.

``folder`` makes and checks the networks, ``card`` describes them.  Change things here when a deployed network needs
another file, or its card another fact.  Imports ``work``, whose code builds the predictor, ``results`` and ``report``.
"""

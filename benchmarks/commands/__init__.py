"""The commands of ``dbn-bench`` that are not in :mod:`benchmarks.cli`, and what all of them share."""

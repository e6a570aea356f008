"""Figures of the report, one a module, with their style, labels and cache; ``figures``: the list of all of them."""

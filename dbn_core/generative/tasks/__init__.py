"""The tasks of the generative papers: ``generation`` by score networks, and ``tabular`` by forests."""

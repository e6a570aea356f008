"""Scores of generated samples: images and points (``samples``, ``extractor``), and tables (``tables``)."""

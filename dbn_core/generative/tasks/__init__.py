"""What the suites of the generative papers are about: samples of score networks, and tables."""

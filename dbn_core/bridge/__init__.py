"""Diffusion bridges in logit space (Kim, Yoon and Lee, 2024, arXiv 2404.15814), one idea a file."""

"""Diffusion bridges in logit space (Kim, Yoon and Lee, 2024, arXiv 2404.15814), one idea a file.

Equations are numbered as at the head of ``baselines/dbn``, which lists them.
"""

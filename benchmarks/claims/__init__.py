"""Claims of papers, and of this project, decided on the result rows of suites: see ``papers`` and ``decide``.

Imports ``report`` for rows and pages, ``results`` and ``statistics``; no torch.
Change things here when a claim is added or its test changes.
"""

"""Claims of papers, and of this project, decided on the result rows of suites: see ``papers`` and ``decide``."""

"""What is to be done: suites as TOML files (``schema``), and the artefacts that one needs, by key (``plan``).

Change things here when a suite gets a new field, or when something else must decide what an artefact is made from:
keys are hashes of recipes, and a change of them makes every stored artefact a stranger.  Imports the leaves alone, and
no torch, so that listing and planning stay instant.
"""

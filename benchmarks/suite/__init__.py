"""Suites as TOML files (``schema``), and the artefacts that one needs, by key (``plan``).

Change things here when a suite gets a new field, or when an artefact depends on something new: keys are hashes of
recipes (``keys``), and changing how they are computed invalidates every stored artefact.  Imports the leaves alone, and
no torch, so that listing and planning stay fast.
"""

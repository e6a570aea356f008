"""Diffusion models of tables, whose ensemble is the trees of a forest: where the rule of aggregation matters most.

The base is Forest-VP (Jolicoeur-Martineau, Fatras and Kachman, AISTATS 2024, arXiv 2309.09968): a random forest for
each noise level predicts the noise of a noised table.  "When Are Two Scores Better Than One?" (arXiv 2601.11444) takes
the trees as members and applies each rule of :mod:`~dbn_core.generative.aggregate` to their predictions.  The modules:

* ``data``: tables with kinds of columns, and those that scikit-learn brings along;
* ``coding``: between a table and numbers in [-1, 1];
* ``trees``: a forest in flat arrays, every tree's prediction at once;
* ``forest``: Forest-VP: fit once, then sample by any rule;
* ``metrics``: Wasserstein-1, coverage, scores of learners; pure functions of tables;
* ``protocol``: the papers' protocol of splits and generated sets, as rows.
"""

"""Diffusion models of tables; the trees of a forest are the ensemble.

The base is Forest-VP (Jolicoeur-Martineau, Fatras and Kachman, AISTATS 2024, arXiv 2309.09968): for each noise level a
random forest predicts the noise of a noised table.  "When Are Two Scores Better Than One?" (arXiv 2601.11444) takes the
trees as members and applies each rule of :mod:`~dbn_core.generative.aggregate` to their predictions.  The modules:

* ``data``: tables with kinds of columns, and those that come with scikit-learn;
* ``coding``: between a table and numbers in [-1, 1];
* ``files``: a table from a CSV file;
* ``trees``: trees of a forest or booster in flat arrays, every tree's prediction at once;
* ``process``: noise levels, sampling, and the error of the noise; the fitted model as a torch module;
* ``forest``: Forest-VP: fit once, then sample by any rule;
* ``boosting``: gradient-boosted trees in the place of a forest;
* ``per_class``: a diffusion for each class.
"""

"""The claims, one module for each paper.  A claim is a function: its docstring is the sentence, its body the test.

All checks that a function returns must hold.  Methods are compared with the same teachers, the same budget and learning
rates chosen in the same way; if rows of a suite differ in that, a caveat says so.  Two margins are common: 0.003 of
accuracy (0.3 points) is about twice the standard deviation between the DBN paper's own runs, and 0.01 nats of NLL
is a change of 1 % in the probability of the true class.  Accuracy and ECE are fractions, NLL is in nats.

Published figures carry the mark of their source (``benchmarks/published.py``).
"""

from benchmarks.claims.papers import b_dense, bn, dbn, own, score_ensembles

PAPERS = {module.PAPER.key: module.PAPER for module in (dbn, bn, b_dense, score_ensembles, own)}
CLAIMS = [claim for paper in PAPERS.values() for claim in paper.claims]

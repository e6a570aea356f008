"""The claims, one module a paper; a claim is a function whose docstring is the sentence and whose body is the test.

All that a function returns must hold.  A claim compares like with like: the same teachers and the same budget, learning
rates chosen the same way; where rows of a suite fall short of that, a caveat says so.  Two margins return: 0.003 of
accuracy (0.3 points) is about twice the standard deviation between the DBN paper's own runs, and 0.01 nats of NLL is
a change of 1 % in the probability given to the true class.  Accuracy and ECE are fractions, NLL is in nats.

Published figures carry a mark that says where we have them from (``benchmarks/published.py``).
"""

from benchmarks.claims.papers import b_dense, bn, dbn, own, score_ensembles

PAPERS = {module.PAPER.key: module.PAPER for module in (dbn, bn, b_dense, score_ensembles, own)}
CLAIMS = [claim for paper in PAPERS.values() for claim in paper.claims]

"""Out-of-distribution (OOD) detection by confidence (Hendrycks and Gimpel, 2017, 1610.02136) and by disagreement.

In-distribution is the positive class: a higher score means a test image.
"""

from __future__ import annotations

import numpy as np

from dbn_core.metrics.scores import Array, mixture_log_probs
from dbn_core.metrics.selective import mutual_information

RECALL = 0.95


def max_probability(log_probs: Array) -> Array:
    """The largest softmax probability, as its logarithm, which orders alike; [N, K] to [N]."""
    return np.asarray(np.asarray(log_probs, np.float64).max(1))


def negative_entropy(log_probs: Array) -> Array:
    """Minus the predictive entropy in nats; [N, K] to [N].

    >>> import numpy as np
    >>> negative_entropy(np.log([[0.5, 0.5]])).round(4).tolist()
    [-0.6931]
    """
    log_probs = np.asarray(log_probs, np.float64)
    probs = np.exp(log_probs)
    return (probs * np.where(probs > 0, log_probs, 0.0)).sum(1)


def detectors(terms: Array) -> dict[str, Array]:
    """Scores of M predictions [M, N, K], [N] each: ``msp``, ``entropy`` and, of two predictions or more, ``mi``.

    The last is minus their mutual information: members agree on images that are like those of training.
    """
    log_probs = mixture_log_probs(terms)
    scores = {"msp": max_probability(log_probs), "entropy": negative_entropy(log_probs)}
    return scores | ({"mi": -mutual_information(terms)} if len(terms) > 1 else {})


def detection(test: Array, ood: Array) -> dict[str, float]:
    """AUROC, AUPR and FPR95 of the scores of test images [N] and of OOD images [M].

    ``auroc``: the share of pairs in which the test image has the higher score, ties counting half.  ``aupr``: average
    precision of retrieving the test images; it depends on their share, N / (N + M).  ``fpr95``: the share of OOD
    images that pass a threshold which 95 % of the test images pass.

    >>> import numpy as np
    >>> detection(np.array([0.9, 0.8]), np.array([0.1, 0.85]))
    {'auroc': 0.75, 'aupr': 0.8333333333333333, 'fpr95': 0.5}
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    truth = np.concatenate([np.ones(len(test)), np.zeros(len(ood))])
    scores = np.concatenate([test, ood])
    false_positives, recall, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "aupr": float(average_precision_score(truth, scores)),
        "fpr95": float(false_positives[recall >= RECALL][0]),
    }

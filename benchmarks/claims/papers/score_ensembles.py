"""Claims of “When Are Two Scores Better Than One?” (2026) on ensembles of score networks."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "score-ensembles",
    "Score ensembles",
    "When Are Two Scores Better Than One? (TMLR 2026)",
    "2601.11444",
    "The paper is about generative models and measures FID on images.",
)


MEAN = "FID 4.79 → 4.98 [B]"


@PAPER.claim(
    "a mean of scores lowers the pointwise loss",
    ("SE@2", "SE@4", "SE@5"),
    data="CIFAR-10 images, five networks",
    published="score-matching loss 0.0284 → 0.0280 [B]",
    why="Any lower loss counts. It is below the mean of the members' losses exactly (Jensen), which needs no "
    "test; here it is compared with one network, the first.",
)
def scores_mean_lowers_loss(rows: Rows, ensemble: str) -> Check:
    """Averaging the scores of several networks lowers the denoising loss below that of one of them."""
    return rows.gap("dsm", ensemble, "SE@1").below(0)


@PAPER.claim(
    "a mean of scores draws worse samples",
    ("SE@2", "SE@4", "SE@5"),
    data="CIFAR-10 images, five networks",
    published=MEAN,
    why="Worse is any larger energy distance; where it is smaller, the claim does not hold.",
)
def scores_mean_samples(rows: Rows, ensemble: str) -> Check:
    """Averaging the scores of several networks does not improve the samples: it makes them worse."""
    return rows.gap("energy", ensemble, "SE@1").above(0)


@PAPER.claim(
    "nor nearer in features of classifiers",
    ("SE@2", "SE@4"),
    data="CIFAR-10 images, five networks",
    published=MEAN,
    why="Worse is any larger distance. The features are those of this suite's own small classifiers.",
)
def scores_mean_features(rows: Rows, ensemble: str) -> Check:
    """In features of classifiers, too, the samples of a mean of scores are further from real ones."""
    return rows.gap("fd", ensemble, "SE@1").above(0)


@PAPER.claim(
    "a mean of scores improves the likelihood",
    ("SE@2", "SE@4", "SE@5"),
    data="CIFAR-10 images, five networks; its figures could not be recovered",
    why="Any lower NLL counts, against one network, the first.",
)
def scores_mean_likelihood(rows: Rows, ensemble: str) -> Check:
    """Averaging the scores of several networks improves the likelihood of test examples by the flow."""
    return rows.gap("nll", ensemble, "SE@1").below(0)


@PAPER.claim(
    "other step-wise rules equal the mean",
    ("Median@4", "Median@5", "Geometric@4", "Geometric@5", "Alternating@4", "Alternating@5"),
    data="CIFAR-10 images, five networks",
    published="FID 4.98 (median), 4.97 (geometric), 5.05 (alternating), 4.98 (mean) [B]",
    why="Two rules are taken as equal within 0.001 of energy distance, about a tenth of one network's own.",
)
def scores_rules_equal(rows: Rows, rule: str) -> Check:
    """Median, geometric mean and a member drawn anew at each step give samples like those of the mean."""
    return rows.gap("energy", rule, f"SE@{rule.partition('@')[2]}").within(0.001)


@PAPER.claim(
    "averaged end points are worse",
    ("Mean of predictions@4", "Mean of predictions@5"),
    data="FFHQ images, four networks",
    published="FID 58.31 against 23.44 of the mean of scores [B]",
    why="Any larger energy distance counts.",
)
def scores_ends_averaged(rows: Rows, ends: str) -> Check:
    """Averaging the end points of the members' trajectories makes samples worse than averaging their scores."""
    return rows.gap("energy", ends, f"SE@{ends.partition('@')[2]}").above(0)


@PAPER.claim(
    "dropout passes do not help either",
    ("MC dropout@4", "MC dropout@5", "MC dropout@20"),
    data="CIFAR-10 images, twenty passes",
    published="FID 5.75 of one pass → 5.85 of their mean; 4.83 without dropout [B]",
    why="Any larger energy distance counts, against one fixed mask and against one network without dropout.",
)
def scores_dropout(rows: Rows, dropout: str) -> list[Check]:
    """Averaging dropout passes draws worse samples than one pass does, and than a network without dropout."""
    return [rows.gap("energy", dropout, "MC dropout@1").above(0), rows.gap("energy", dropout, "SE@1").above(0)]


@PAPER.claim(
    "members that start apart are no better",
    ("Large initial output@2", "Large initial output@5"),
    data="CIFAR-10 images, last layer initialised with variance 1 instead of 0",
    published="FID 5.21 against 4.98 of the usual members' mean [B]",
    why="Any larger energy distance counts.",
)
def scores_large_init(rows: Rows, large: str) -> Check:
    """Members whose last layers start apart, instead of at zero, draw worse samples when averaged than usual ones."""
    return rows.gap("energy", large, f"SE@{large.partition('@')[2]}").above(0)


@PAPER.claim(
    "weak members gain from averaging",
    ("Short training@4", "Short training@5"),
    data="CIFAR-10 images, networks along their training; its figures could not be recovered",
    why="Any smaller energy distance counts, against one network trained as shortly.",
)
def scores_weak_members(rows: Rows, ensemble: str) -> Check:
    """The mean of scores of networks that were trained shortly draws better samples than one of them."""
    return rows.gap("energy", ensemble, "Short training@1").below(0)


@PAPER.claim(
    "the dominant rule ruins networks' samples",
    ("Dominant@4", "Dominant@5"),
    data="CIFAR-10 and FFHQ images",
    published="FID 7.88 against 4.98 of the mean; 46.79 against 23.44 on FFHQ [B]",
    why="Any larger energy distance counts.",
)
def scores_dominant_ruins(rows: Rows, dominant: str) -> Check:
    """Taking the largest component of the networks' scores makes samples worse than their mean does."""
    return rows.gap("energy", dominant, dominant.replace("Dominant", "SE")).above(0)


@PAPER.claim(
    "a sum of scores collapses",
    ("Sum@2",),
    data="no figure of the paper could be recovered",
    why="Any larger energy distance counts.",
)
def scores_sum_collapses(rows: Rows, total: str) -> Check:
    """The sum of scores, read as a product of experts, makes samples worse than their mean does."""
    return rows.gap("energy", total, "SE@2").above(0)


@PAPER.claim(
    "a mixture wins with complementary members",
    (
        *("Experts, mixture@2", "Experts, mixture@4", "Experts, mixture@5"),
        *("Overlapping experts, mixture@4", "Overlapping experts, mixture@5"),
    ),
    data="CIFAR-10 images, five networks, each without two classes, or with two classes alone",
    published="FID 5.86 against 7.13 of the mean (without two), 12.05 against 90.16 (two alone) [B]",
    why="Any smaller energy distance counts.",
)
def scores_mixture_of_experts(rows: Rows, mixture: str) -> Check:
    """Where members know different parts of the data, following one of them a trajectory draws better samples than the
    mean of their scores."""
    return rows.gap("energy", mixture, mixture.replace("mixture", "mean")).below(0)


@PAPER.claim(
    "the dominant tree wins, with a worse loss",
    ("Dominant@10", "Dominant@100", "Dominant, per class@100"),
    data="Iris, 100 trees, three splits",
    published="Wasserstein-1 on Iris 0.46 against 0.94 [B]",
    why="Any smaller distance and any higher loss count.",
)
def forest_dominant_wins(rows: Rows, dominant: str) -> list[Check]:
    """Over the trees of a forest the dominant rule generates tables nearer to the data than the mean does, although its
    pointwise loss is higher."""
    mean = dominant.replace("Dominant", "Forest")
    return [rows.gap("w1_test", dominant, mean).below(0), rows.gap("noise_mse", dominant, mean).above(0)]


@PAPER.claim(
    "a mean of trees lowers the pointwise loss",
    ("Forest@10", "Forest@100"),
    data="no figure of the paper could be recovered",
    why="Any lower loss counts, against one tree.",
)
def forest_mean_lowers_loss(rows: Rows, forest: str) -> Check:
    """Averaging trees lowers the loss that forests are fitted by."""
    return rows.gap("noise_mse", forest, "Forest@1").below(0)

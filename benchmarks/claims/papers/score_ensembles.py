"""Claims of “When Are Two Scores Better Than One?” (2026) on ensembles of score networks."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "score-ensembles",
    "Score ensembles",
    "When Are Two Scores Better Than One? (TMLR 2026)",
    "2601.11444",
    "The paper is about generative models and measures FID on images. On bridges a verdict speaks of a transfer: "
    "displacements of several bridges are combined inside the sampler. For blind bridges that is the same as averaging "
    "where they end, exactly.",
)


MEAN = "FID 4.79 → 4.98 [B]"


@PAPER.claim(
    "a mean of scores helps the likelihood",
    ("2 seeds of a bridge, scores@3",),
    data="CIFAR-10 images, five networks",
    published="score-matching loss 0.0284 → 0.0280 (while FID gets worse, 4.79 → 4.98) [B]",
    why="Any lower NLL counts. Two bridges of the same three members, trained from different seeds, against one.",
)
def score_mean_helps_likelihood(rows: Rows, two: str) -> Check:
    """Averaging the scores of several networks at each step improves the likelihood over one of them."""
    return rows.gap("nll", two, "Plain distillation@3").below(0)


@PAPER.claim(
    "the median does as well as the mean",
    ("DBN (score median)@7",),
    data="CIFAR-10 images, five networks",
    published="FID 4.98 (mean), 4.97 (geometric), 4.98 (median) [B]",
    why="The margin is 0.01 nats. Three bridges (size 7), since the median of two is their mean.",
)
def score_rules_alike(rows: Rows, median: str) -> Check:
    """The careful step-wise rules do not differ: a median of the scores does as well as their mean."""
    return rows.gap("nll", median, "DBN (score mean)@7").within(0.01)


@PAPER.claim(
    "the dominant rule does harm",
    ("DBN (score dominant)@5", "DBN (score dominant)@7"),
    data="CIFAR-10 and FFHQ images",
    published="FID 7.88 against 4.98 of the mean; 46.79 against 23.44 on FFHQ [B]",
    why="Harm is more than 0.01 nats.",
)
def score_dominant_fails(rows: Rows, dominant: str) -> Check:
    """Taking the largest component of the scores (the dominant rule) does harm."""
    return rows.gap("nll", dominant, dominant.replace("dominant", "mean")).above(0.01)


@PAPER.claim(
    "averaging end points is worse",
    ("2 seeing bridges of 4 steps, logits@5",),
    data="FFHQ images, four networks",
    published="FID 58.31 against 23.44 [B]",
    why="Worse is more than 0.01 nats. Bridges that see their state, since for blind ones both are the same.",
)
def score_end_points_fail(rows: Rows, ends: str) -> Check:
    """Averaging where several bridges end is worse than averaging their scores at each step."""
    return rows.gap("nll", ends, ends.replace("logits", "scores")).above(0.01)


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
    ("Experts, mixture@2", "Experts, mixture@4"),
    data="no figure of the paper could be recovered",
    why="Any smaller energy distance counts.",
)
def scores_mixture_of_experts(rows: Rows, mixture: str) -> Check:
    """Where members know different parts of the data, following one of them a trajectory draws better samples than the
    mean of their scores."""
    return rows.gap("energy", mixture, mixture.replace("mixture", "mean")).below(0)


@PAPER.claim(
    "the dominant tree wins, with a worse loss",
    ("Dominant@100",),
    data="Iris, 100 trees, three splits",
    published="Wasserstein-1 on Iris 0.46 against 0.94 [B]",
    why="Any smaller distance and any higher loss count.",
)
def forest_dominant_wins(rows: Rows, dominant: str) -> list[Check]:
    """Over the trees of a forest the dominant rule generates tables nearer to the data than the mean does, although its
    pointwise loss is higher."""
    return [
        rows.gap("w1_test", dominant, "Forest@100").below(0),
        rows.gap("noise_mse", dominant, "Forest@100").above(0),
    ]


@PAPER.claim(
    "a mean of trees lowers the pointwise loss",
    ("Forest@10", "Forest@100"),
    data="no figure of the paper could be recovered",
    why="Any lower loss counts, against one tree.",
)
def forest_mean_lowers_loss(rows: Rows, forest: str) -> Check:
    """Averaging trees lowers the loss that forests are fitted by."""
    return rows.gap("noise_mse", forest, "Forest@1").below(0)

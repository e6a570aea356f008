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

"""The claims: one function each, whose docstring is the claim in our words and whose body is the test.

All that a function returns must hold.  A claim compares like with like: the same teachers and the same budget, learning
rates chosen the same way; where rows of a suite fall short of that, a caveat says so.  Two margins return: 0.003 of
accuracy (0.3 points) is about twice the standard deviation between the DBN paper's own runs, and 0.01 nats of NLL is
a change of 1 % in the probability given to the true class.  Accuracy and ECE are fractions, NLL is in nats.

Published figures carry a mark that says where we have them from (``benchmarks/published.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.claims.decide import Check, Claim, Decide, Rows

CLAIMS: list[Claim] = []


class Paper(NamedTuple):
    """A paper, and what a reader of its claims should know first."""

    name: str
    title: str
    arxiv: str
    note: str


PAPERS = {
    "dbn": Paper(
        "DBN",
        "Fast Ensembling with Diffusion Schrödinger Bridge (Kim, Yoon, Lee; ICLR 2024)",
        "2404.15814",
        "Its deep-ensemble equivalents (DEE) come from raw NLL. Networks trained in the usual way are "
        "over-confident, and "
        "whatever softens them gains raw DEE, temperature scaling of one network included; so each raw value is shown "
        "with its counterpart after temperature scaling. “Blind”: the score network never sees its state, as in the "
        "released code, so that the bridge is a mean of regressions from the features (docs/dbn.md); “seeing”: "
        "it does. "
        "MSE and KL name the loss. “DBN (paper)” behaves as the released code does, quirks included, and is blind.",
    ),
    "bn": Paper(
        "BN",
        "Traversing Between Modes in Function Space for Fast Ensembling (Yun, Lee, Nam, Lee; ICML 2023)",
        "2306.11304",
        "Its NLL and deep-ensemble equivalents are calibrated (after temperature scaling), unlike the DBN "
        "paper's, so the "
        "two papers' DEE figures cannot be compared. Its figures here are of type I, where a bridge reads "
        "features of the source network alone.",
    ),
    "b-dense": Paper(
        "B-DENSE",
        "B-DENSE, dense supervision of step distillation with a K-branch student (ICLR 2026 DeLTa workshop)",
        "2602.15971",
        "The paper is about image generation and measures FID. On bridges a verdict speaks of our transfer: the "
        "one-step "
        "student also predicts the intermediate states of its teacher. Students with and without branches learn "
        "from the true ensemble with the same share.",
    ),
    "score-ensembles": Paper(
        "Score ensembles",
        "When Are Two Scores Better Than One? (TMLR 2026)",
        "2601.11444",
        "The paper is about generative models and measures FID on images. On bridges a verdict speaks of a transfer: "
        "displacements of several bridges are combined inside the sampler. For blind bridges that is the same as "
        "averaging where they end, exactly.",
    ),
    "own": Paper(
        "This project",
        "What this project's reports say of its own rows",
        "",
        "Nobody else's figures stand next to these. Training cost is in the suites' reports.",
    ),
}

CIFAR = "CIFAR-10, ResNet-32×2"
IMAGES = "CIFAR-10 images"
BRIDGES = ("DBN (blind, MSE)", "DBN (blind, KL)", "DBN (paper)")
RATE = "The learning rate of the bridge was chosen for the network without diffusion."


def claim(
    paper: str, name: str, of: Sequence[str], *, why: str, data: str = "", published: str = "",
    caveats: dict[str, str] | None = None, see: str = "", suite: str = "",
) -> Callable[[Decide], Decide]:  # fmt: skip
    """Add a function to the claims; see :class:`benchmarks.claims.decide.Claim`."""

    def decorate(function: Decide) -> Decide:
        sentence = " ".join((function.__doc__ or "").split())
        key = function.__name__.replace("_", "-")
        CLAIMS.append(Claim(key, paper, name, sentence, tuple(of), function, why, data, published, caveats, see, suite))
        return function

    return decorate


# ------------------------------------------------------------------------------------------------------------------ DBN


@claim(
    "dbn",
    "accuracy of DE-3 at 1.17 times the FLOPs",
    BRIDGES,
    data=CIFAR,
    published="ACC 92.98 ± 0.16 % at 1.166× FLOPs, against 93.06 ± 0.14 % of DE-3 at 3× [NB]",
    why="“Reaches” allows 0.3 points. The FLOPs may go up to 1.2×, since networks differ and the paper counts "
    "element-wise work, which the suite leaves out (1.158× by our count).",
)
def dbn_accuracy_of_three(rows: Rows, bridge: str) -> list[Check]:
    """One bridge reaches the accuracy of a deep ensemble of three at about 1.17 times the FLOPs of one network."""
    accuracy, flops = rows.gap("acc", f"{bridge}@3", "DE@3"), rows.value("macs_rel", f"{bridge}@3")
    return [accuracy.above(-0.003), flops.below(1.2)]


@claim(
    "dbn",
    "one bridge is worth more than two members",
    BRIDGES,
    data=CIFAR,
    published="DEE 2.36 (raw NLL) [NB]",
    why="The published 2.36 is not demanded of other data and networks; two is the round number below it.",
)
def dbn_one_bridge_dee(rows: Rows, bridge: str) -> Check:
    """One bridge is worth more than two members of a deep ensemble."""
    return rows.value("dee_raw", f"{bridge}@3").above(2)


@claim(
    "dbn",
    "two bridges are worth about three members",
    BRIDGES,
    data=CIFAR,
    published="DEE 3.03 (raw NLL) [NB]",
    why="“About three” allows half a member.",
)
def dbn_two_bridges_dee(rows: Rows, bridge: str) -> Check:
    """Two bridges are worth about three members of a deep ensemble."""
    return rows.value("dee_raw", f"{bridge}@5").above(2.5)


@claim(
    "dbn",
    "a second bridge lowers the NLL",
    (*BRIDGES, "Bridges of 3, 60 epochs each"),
    data=CIFAR,
    published="DEE 2.36 with one bridge, 3.03 with two [NB]",
    why="Any lower NLL counts. Each bridge has the same updates, so that two train twice as long.",
)
def dbn_second_bridge_helps(rows: Rows, bridge: str) -> Check:
    """A second bridge to further members lowers the NLL again."""
    return rows.gap("nll", f"{bridge}@5", f"{bridge}@3").below(0)


@claim(
    "dbn",
    "so it does at equal training in all",
    ("2 bridges of 3, 240 epochs in all@5",),
    data="not compared there",
    why="Any lower NLL counts; one bridge trains as long as the two together.",
)
def dbn_second_bridge_helps_at_equal_cost(rows: Rows, bridges: str) -> Check:
    """A second bridge lowers the NLL also where both together train no longer than the one."""
    return rows.gap("nll", bridges, "1 bridge of 3, 240 epochs in all@3").below(0)


@claim(
    "dbn",
    "one bridge saturates near three members",
    (
        "One bridge of 5, 60 epochs@5",
        "One bridge of 9, 60 epochs@9",
        "One bridge of 33, 60 epochs@33",
        "One bridge of 5, 240 epochs@5",
        "One bridge of 9, 240 epochs@9",
        "One bridge of 33, 240 epochs@33",
    ),
    data=CIFAR,
    published="DEE 2.33 with three teachers, 2.36 with five, 2.47 with eight (NLL 0.241, 0.240, 0.238) [NB]",
    why="The NLL may fall by 0.01 nats: more than the published fall of 0.003.",
)
def dbn_one_bridge_saturates(rows: Rows, bridge: str) -> Check:
    """One bridge saturates near three members: more teachers, trained as long, do not make it better."""
    three = "1 bridge of 3, 240 epochs in all@3" if "240" in bridge else "Bridges of 3, 60 epochs each@3"
    return rows.gap("nll", bridge, three).above(-0.01)


@claim(
    "dbn",
    "better than BN, at fewer FLOPs",
    BRIDGES,
    data=CIFAR,
    published="ACC 92.98 % against 91.91 %, DEE 2.36 against 1.90, FLOPs 1.166× against 1.411× [NB]",
    why="Any advantage counts, but it must be there in all three.",
)
def dbn_beats_bn(rows: Rows, bridge: str) -> list[Check]:
    """For three members covered, DBN is more accurate and has a lower NLL than a Bridge Network, at fewer FLOPs."""
    mine, theirs = f"{bridge}@3", "BN (medium)@3"
    return [
        rows.gap("acc", mine, theirs).above(0),
        rows.gap("nll", mine, theirs).below(0),
        rows.gap("macs_rel", mine, theirs).below(0),
    ]


def _ordered(rows: Rows, score: str, bridge: str) -> list[Check]:
    return [
        rows.gap(score, f"{bridge}@3", "DE@3").above(0),
        rows.gap(score, f"{bridge}@3", "BN (medium)@3").below(0),
        rows.gap(score, "BN (medium)@3", "DE@1").below(0),
    ]


@claim(
    "dbn",
    "DE before DBN before BN before one network",
    BRIDGES,
    data=CIFAR,
    published="DEE 3, 2.36, 1.90 and 1 (raw NLL) [NB]",
    why="Any difference of raw NLL counts, but each neighbour must differ.",
)
def dbn_ordering(rows: Rows, bridge: str) -> list[Check]:
    """For three members, a deep ensemble is better than DBN, DBN better than BN, and BN better than one network."""
    return _ordered(rows, "nll", bridge)


@claim(
    "dbn",
    "the same order after temperature scaling",
    BRIDGES,
    data=CIFAR,
    why="The paper states its order in raw NLL alone, which repaired over-confidence moves.",
)
def dbn_ordering_after_scaling(rows: Rows, bridge: str) -> list[Check]:
    """The same order after temperature scaling of each."""
    return _ordered(rows, "cnll", bridge)


@claim(
    "dbn",
    "BN stays below two members",
    ("BN (medium)",),
    data=CIFAR,
    published="DEE 1.90 (raw NLL) [NB]",
    why="The bound is the claim's own.",
)
def dbn_bn_below_two(rows: Rows, bn: str) -> Check:
    """A Bridge Network with two bridges stays below two members of a deep ensemble."""
    return rows.value("dee_raw", f"{bn}@3").below(2)


@claim(
    "dbn",
    "further bridges do not help BN",
    ("BN (medium)",),
    data=CIFAR,
    published="DEE 1.90 with two bridges, 1.95 with four, 1.94 with six [NB]",
    why="The NLL may fall by 0.01 nats; the published fall is 0.004.",
)
def dbn_bn_saturates(rows: Rows, bn: str) -> Check:
    """Further bridges do not help a Bridge Network: four are no better than two."""
    return rows.gap("nll", f"{bn}@5", f"{bn}@3").above(-0.01)


@claim(
    "dbn",
    "ED and END² fall below one network",
    ("ED@3", "END²@3", "ED, 60 epochs@3"),
    data=CIFAR,
    see="docs/end2.md",
    published="drawn as DEE “below 1”, at ACC 91.96 ± 0.42 % (ED) and 91.99 ± 0.42 % (END²) against 91.30 % of one "
    "network [NB]",
    why="Any higher NLL counts. END² here has the paper's setting alone, whose gradients are small at that rate; "
    "settings chosen on validation are worth their teachers.",
)
def dbn_distillation_below_one(rows: Rows, student: str) -> Check:
    """A student distilled from three members has a higher NLL than one ordinary network."""
    return rows.gap("nll", student, "DE@1").above(0)


@claim(
    "dbn",
    "five steps into one lose nothing",
    ("blind", "seeing"),
    data=CIFAR,
    published="a table that could not be recovered [?]",
    why="“Nothing” is 0.01 nats of NLL and 0.3 points of accuracy. Same updates in all, each at the rate that "
    "validation chose for it.",
)
def dbn_step_distillation(rows: Rows, kind: str) -> list[Check]:
    """Distilling five sampler steps into one loses nothing."""
    one, five = f"DBN ({kind}, MSE)@3", f"DBN ({kind}, 5 steps run)@3"
    return [rows.gap("nll", one, five).below(0.01), rows.gap("acc", one, five).above(-0.003)]


@claim(
    "dbn",
    "better than direct regression",
    ("blind, MSE", "blind, KL", "seeing, MSE", "seeing, KL"),
    caveats={"cifar10-cpu": RATE, "digits": RATE},
    data="not compared in the paper, though its argument rests on it and its reviewers asked",
    see="docs/dbn.md",
    why="Any lower NLL counts, against the same network with the same loss, trained as long in one step.",
)
def dbn_better_than_regression(rows: Rows, kind: str) -> Check:
    """A diffusion bridge is better than the same network, trained to predict the ensemble in one step."""
    return rows.gap("nll", f"DBN ({kind})@3", f"Direct ({kind})@3").below(0)


@claim(
    "dbn",
    "a network that sees its state is better",
    ("MSE", "KL"),
    see="docs/dbn.md",
    data="assumed in the paper, whose released network does not see it",
    why="Any lower NLL counts; the two networks differ in their logit branch alone.",
)
def dbn_state_helps(rows: Rows, loss: str) -> Check:
    """A score network that sees the state of the diffusion is better than a blind one."""
    return rows.gap("nll", f"DBN (seeing, {loss})@3", f"DBN (blind, {loss})@3").below(0)


@claim(
    "dbn",
    "noise on the path helps",
    ("blind, MSE", "blind, KL", "seeing, MSE", "seeing, KL"),
    see="docs/dbn.md",
    data="not compared in the paper",
    why="Any lower NLL counts: a rate of 1, whose noise has the size of the logits' differences, against 0.0001, "
    "which is next to none.",
)
def dbn_noise_helps(rows: Rows, kind: str) -> Check:
    """Noise on the way makes a bridge better: more of it than the paper's, which is next to none."""
    return rows.gap("nll", f"DBN ({kind}, beta 1)@3", f"DBN ({kind})@3").below(0)


@claim(
    "dbn",
    "a random temperature makes a bridge better",
    ("blind", "seeing"),
    see="docs/dbn.md",
    data="introduced by the paper to avoid collapse; its open question 3",
    why="Any lower NLL counts, against the temperature 1 and against the fixed mean of the random one.",
)
def dbn_temperature_helps(rows: Rows, kind: str) -> list[Check]:
    """Dividing the source's logits by a random temperature makes a bridge better than a fixed one does."""
    drawn = f"DBN ({kind}, MSE)@3"
    fixed = (f"DBN ({kind}, temperature {t}, fixed)@3" for t in ("1", "2.0667"))
    return [rows.gap("nll", drawn, other).below(0) for other in fixed]


@claim(
    "dbn",
    "ECE is higher than the ensemble's",
    BRIDGES,
    data="not said for which data",
    published="said of its tables in words, without a number [REV]",
    why="Any higher ECE counts.",
)
def dbn_ece_poor(rows: Rows, bridge: str) -> Check:
    """DBN is worse calibrated than the deep ensemble that it replaces: its ECE is higher."""
    return rows.gap("ece", f"{bridge}@3", "DE@3").above(0)


@claim(
    "dbn",
    "the same after temperature scaling",
    BRIDGES,
    why="Any higher ECE counts.",
    data="not analysed in the paper, though its code computes calibrated ECE",
)
def dbn_ece_poor_after_scaling(rows: Rows, bridge: str) -> Check:
    """That is more than a wrong temperature: after temperature scaling of both, DBN's ECE is still higher."""
    return rows.gap("cece", f"{bridge}@3", "DE@3").above(0)


# ------------------------------------------------------------------------------------------------------------------- BN

TINY = "TinyImageNet, ResNet-34; ImageNet, ResNet-50"


@claim(
    "bn",
    "one bridge lowers the calibrated NLL",
    ("BN (small)", "BN (medium)"),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.478 (small) and 1.446 (medium) against 1.683 on TinyImageNet; 0.914 and 0.889 against 0.936 on "
    "ImageNet [NB]",
)
def bn_one_bridge_helps(rows: Rows, bn: str) -> Check:
    """One bridge of type I makes a network better in calibrated NLL."""
    return rows.gap("cnll", f"{bn}@2", "DE@1").below(0)


@claim(
    "bn",
    "a small bridge is worth two members",
    ("BN (small)",),
    data="TinyImageNet, ResNet-34",
    published="DEE 2.28 (calibrated) at 1.050× FLOPs; on ImageNet 1.41 at 1.061× [DER]",
    why="The FLOPs may go up to 1.15×: in a network of few blocks, the same part of it weighs more.",
)
def bn_small_bridge_two_members(rows: Rows, bn: str) -> list[Check]:
    """One small bridge is worth more than two members of a deep ensemble, at a few percent more FLOPs."""
    return [rows.value("dee_cal", f"{bn}@2").above(2), rows.value("macs_rel", f"{bn}@2").below(1.15)]


@claim(
    "bn",
    "a second bridge lowers it again",
    ("BN (small)", "BN (medium)"),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.478 → 1.421 (small) and 1.446 → 1.388 (medium) on TinyImageNet; 0.914 → 0.907 and 0.889 → 0.876 "
    "on ImageNet [NB]",
)
def bn_second_bridge_helps(rows: Rows, bn: str) -> Check:
    """A second bridge lowers the calibrated NLL again."""
    return rows.gap("cnll", f"{bn}@3", f"{bn}@2").below(0)


@claim(
    "bn",
    "a medium bridge is better than a small one",
    ("BN (medium)@2",),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.446 at 1.180× against 1.478 at 1.050× on TinyImageNet; 0.889 against 0.914 on ImageNet [NB]",
)
def bn_medium_better_than_small(rows: Rows, bn: str) -> Check:
    """A medium bridge is better than a small one in calibrated NLL: there is quality to be had for FLOPs."""
    return rows.gap("cnll", bn, "BN (small)@2").below(0)


@claim(
    "bn",
    "type II is better than its two networks",
    ("BN (type II)@2",),
    data="CIFAR-10, CIFAR-100, TinyImageNet, ImageNet",
    published="tables that could not be recovered [?]",
    why="Any lower NLL counts. Size 2 is two networks and the bridge between them.",
)
def bn_type_two_beyond_two(rows: Rows, bn: str) -> Check:
    """Two networks and a bridge of type II, which reads features of both, are better than the two networks alone."""
    return rows.gap("cnll", bn, "DE@2").below(0)


# -------------------------------------------------------------------------------------------------------------- B-DENSE

FID = "FID 20.81 against 39.66 (progressive distillation, 128 steps); 4.40 against 4.53 (SFD, two evaluations) [A]"
PLAIN = {
    "DBN (B-DENSE)@3": "Plain distillation@3",
    "Branches, K = 4, alpha 0.2@3": "Distilled, alpha 0.2@3",
    "Branches, K = 4, alpha 0.8@3": "Distilled, alpha 0.8@3",
}


@claim(
    "b-dense",
    "intermediate states make a better student",
    tuple(PLAIN),
    data=IMAGES,
    published=FID,
    see="docs/branches.md",
    why="Any lower NLL counts. Each is compared with plain distillation of the same share of the teacher (alpha).",
)
def b_dense_better_student(rows: Rows, student: str) -> Check:
    """A one-step student that also learns its teacher's intermediate states is better than one that learns the end."""
    return rows.gap("nll", student, PLAIN[student]).below(0)


@claim(
    "b-dense",
    "no cost at inference",
    ("DBN (B-DENSE)@3",),
    data=IMAGES,
    why="One thousandth of a network's FLOPs.",
    published="about 0.01 % more parameters in training, none at inference [B]",
)
def b_dense_no_cost(rows: Rows, student: str) -> Check:
    """It costs nothing at inference: only the branch of the end point is kept."""
    return rows.gap("macs_rel", student, PLAIN[student]).within(0.001)


@claim(
    "b-dense",
    "branches help a sampler of few steps",
    ("1 step", "2 steps", "4 steps"),
    data=IMAGES,
    published=FID,
    caveats=dict.fromkeys(("mixture2d", "digits-diffusion"), "One weighting of the branches, and one setting."),
    why="Any smaller energy distance counts; the FLOPs must be the same to one thousandth.",
)
def b_dense_sampler(rows: Rows, steps: str) -> list[Check]:
    """Taught its teacher's intermediate states as well, a sampler of few steps draws better samples at the "
    "same cost."""
    mine, plain = f"Branches, {steps}@1", f"Distilled, {steps}@1"
    return [rows.gap("energy", mine, plain).below(0), rows.gap("macs_rel", mine, plain).within(0.001)]


# ------------------------------------------------------------------------------------------------------ score ensembles

MEAN = "FID 4.79 → 4.98 [B]"


@claim(
    "score-ensembles",
    "a mean of scores helps the likelihood",
    ("2 seeds of a bridge, scores@3",),
    data="CIFAR-10 images, five networks",
    published="score-matching loss 0.0284 → 0.0280 (while FID gets worse, 4.79 → 4.98) [B]",
    why="Any lower NLL counts. Two bridges of the same three members, trained from different seeds, against one.",
)
def score_mean_helps_likelihood(rows: Rows, two: str) -> Check:
    """Averaging the scores of several networks at each step improves the likelihood over one of them."""
    return rows.gap("nll", two, "Plain distillation@3").below(0)


@claim(
    "score-ensembles",
    "the median does as well as the mean",
    ("DBN (score median)@7",),
    data="CIFAR-10 images, five networks",
    published="FID 4.98 (mean), 4.97 (geometric), 4.98 (median) [B]",
    why="The margin is 0.01 nats. Three bridges (size 7), since the median of two is their mean.",
)
def score_rules_alike(rows: Rows, median: str) -> Check:
    """The careful step-wise rules do not differ: a median of the scores does as well as their mean."""
    return rows.gap("nll", median, "DBN (score mean)@7").within(0.01)


@claim(
    "score-ensembles",
    "the dominant rule does harm",
    ("DBN (score dominant)@5", "DBN (score dominant)@7"),
    data="CIFAR-10 and FFHQ images",
    published="FID 7.88 against 4.98 of the mean; 46.79 against 23.44 on FFHQ [B]",
    why="Harm is more than 0.01 nats.",
)
def score_dominant_fails(rows: Rows, dominant: str) -> Check:
    """Taking the largest component of the scores (the dominant rule) does harm."""
    return rows.gap("nll", dominant, dominant.replace("dominant", "mean")).above(0.01)


@claim(
    "score-ensembles",
    "averaging end points is worse",
    ("2 seeing bridges of 4 steps, logits@5",),
    data="FFHQ images, four networks",
    published="FID 58.31 against 23.44 [B]",
    why="Worse is more than 0.01 nats. Bridges that see their state, since for blind ones both are the same.",
)
def score_end_points_fail(rows: Rows, ends: str) -> Check:
    """Averaging where several bridges end is worse than averaging their scores at each step."""
    return rows.gap("nll", ends, ends.replace("logits", "scores")).above(0.01)


@claim(
    "score-ensembles",
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


@claim(
    "score-ensembles",
    "a mean of scores draws worse samples",
    ("SE@2", "SE@4", "SE@5"),
    data="CIFAR-10 images, five networks",
    published=MEAN,
    why="Worse is any larger energy distance; where it is smaller, the claim does not hold.",
)
def scores_mean_samples(rows: Rows, ensemble: str) -> Check:
    """Averaging the scores of several networks does not improve the samples: it makes them worse."""
    return rows.gap("energy", ensemble, "SE@1").above(0)


@claim(
    "score-ensembles",
    "nor nearer in features of classifiers",
    ("SE@2", "SE@4"),
    data="CIFAR-10 images, five networks",
    published=MEAN,
    why="Worse is any larger distance. The features are those of this suite's own small classifiers.",
)
def scores_mean_features(rows: Rows, ensemble: str) -> Check:
    """In features of classifiers, too, the samples of a mean of scores are further from real ones."""
    return rows.gap("fd", ensemble, "SE@1").above(0)


@claim(
    "score-ensembles",
    "the dominant rule ruins networks' samples",
    ("Dominant@4", "Dominant@5"),
    data="CIFAR-10 and FFHQ images",
    published="FID 7.88 against 4.98 of the mean; 46.79 against 23.44 on FFHQ [B]",
    why="Any larger energy distance counts.",
)
def scores_dominant_ruins(rows: Rows, dominant: str) -> Check:
    """Taking the largest component of the networks' scores makes samples worse than their mean does."""
    return rows.gap("energy", dominant, dominant.replace("Dominant", "SE")).above(0)


@claim(
    "score-ensembles",
    "a sum of scores collapses",
    ("Sum@2",),
    data="no figure of the paper could be recovered",
    why="Any larger energy distance counts.",
)
def scores_sum_collapses(rows: Rows, total: str) -> Check:
    """The sum of scores, read as a product of experts, makes samples worse than their mean does."""
    return rows.gap("energy", total, "SE@2").above(0)


@claim(
    "score-ensembles",
    "a mixture wins with complementary members",
    ("Experts, mixture@2", "Experts, mixture@4"),
    data="no figure of the paper could be recovered",
    why="Any smaller energy distance counts.",
)
def scores_mixture_of_experts(rows: Rows, mixture: str) -> Check:
    """Where members know different parts of the data, following one of them a trajectory draws better samples than the
    mean of their scores."""
    return rows.gap("energy", mixture, mixture.replace("mixture", "mean")).below(0)


@claim(
    "score-ensembles",
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


@claim(
    "score-ensembles",
    "a mean of trees lowers the pointwise loss",
    ("Forest@10", "Forest@100"),
    data="no figure of the paper could be recovered",
    why="Any lower loss counts, against one tree.",
)
def forest_mean_lowers_loss(rows: Rows, forest: str) -> Check:
    """Averaging trees lowers the loss that forests are fitted by."""
    return rows.gap("noise_mse", forest, "Forest@1").below(0)


# --------------------------------------------------------------------------------------------------------- this project

JPEG = "CIFAR-10 (JPEG)"
CHEAP = ("DBN (blind, KL)@3", "Direct (blind, KL)@3", "ED + bridge@8", "ED (from source)@8", "ED (48 epochs)@8")


@claim(
    "own",
    "a student is worth more than six members",
    ("ED (from source)@8", "ED (48 epochs)@8"),
    data=JPEG,
    suite="cifar10-cpu",
    why="Six is the claim's own bound. The FLOPs may be 1.005×, which is shown as 1.00×.",
)
def own_student_worth_six(rows: Rows, student: str) -> list[Check]:
    """At the FLOPs of one network, a distilled student is worth more than six members of a deep ensemble, raw and
    calibrated."""
    return [
        rows.value("dee_raw", student).above(6),
        rows.value("dee_cal", student).above(6),
        rows.value("macs_rel", student).below(1.005),
    ]


@claim(
    "own",
    "an NLL below DE-8's at 1.17 times the FLOPs",
    CHEAP,
    data=JPEG,
    suite="cifar10-cpu",
    why="Any lower NLL counts, but p must be below 0.01: of several methods the best is looked at. 1.17 is what a DBN "
    "costs in its paper; the FLOPs may be 1.175×.",
)
def own_below_eight_members(rows: Rows, method: str) -> list[Check]:
    """At no more than 1.17 times the FLOPs of one network, a method has a lower NLL than a deep ensemble of eight."""
    return [rows.gap("nll", method, "DE@8").below(0, p=0.01), rows.value("macs_rel", method).below(1.175)]


@claim(
    "own",
    "accuracy of DE-8 at 1.17 times the FLOPs",
    CHEAP,
    data=JPEG,
    suite="cifar10-cpu",
    why="Accuracy may be 0.3 points lower; more of it does no harm.",
)
def own_accuracy_of_eight(rows: Rows, method: str) -> list[Check]:
    """At no more than 1.17 times the FLOPs of one network, a method is within 0.3 points of the accuracy of a deep
    ensemble of eight."""
    return [rows.gap("acc", method, "DE@8").above(-0.003), rows.value("macs_rel", method).below(1.175)]

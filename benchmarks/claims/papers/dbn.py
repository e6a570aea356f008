"""Claims of Kim, Yoon and Lee (2024) on Diffusion Bridge Networks."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "dbn",
    "DBN",
    "Fast Ensembling with Diffusion Schrödinger Bridge (Kim, Yoon, Lee; ICLR 2024)",
    "2404.15814",
    "Its deep-ensemble equivalents (DEE) come from raw NLL. Networks trained in the usual way are over-confident, and "
    "anything that softens them gains raw DEE, temperature scaling of one network included; so each raw value is shown "
    "with its counterpart after temperature scaling. “Blind”: the score network never sees its state, as in the "
    "released code, so that the bridge is a mean of regressions from the features (docs/dbn.md); “seeing”: it does. "
    "MSE and KL name the loss. “DBN (paper)” behaves as the released code does, quirks included, and is blind.",
)

CIFAR = "CIFAR-10, ResNet-32×2"
BRIDGES = ("DBN (blind, MSE)", "DBN (blind, KL)", "DBN (paper)")
RATE = "The learning rate of the bridge was chosen for the network without diffusion."


@PAPER.claim(
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


@PAPER.claim(
    "one bridge is worth more than two members",
    BRIDGES,
    data=CIFAR,
    published="DEE 2.36 (raw NLL) [NB]",
    why="The published 2.36 is not demanded of other data and networks; two is the round number below it.",
)
def dbn_one_bridge_dee(rows: Rows, bridge: str) -> Check:
    """One bridge is worth more than two members of a deep ensemble."""
    return rows.value("dee_raw", f"{bridge}@3").above(2)


@PAPER.claim(
    "two bridges are worth about three members",
    BRIDGES,
    data=CIFAR,
    published="DEE 3.03 (raw NLL) [NB]",
    why="“About three” allows half a member.",
)
def dbn_two_bridges_dee(rows: Rows, bridge: str) -> Check:
    """Two bridges are worth about three members of a deep ensemble."""
    return rows.value("dee_raw", f"{bridge}@5").above(2.5)


@PAPER.claim(
    "a second bridge lowers the NLL",
    (*BRIDGES, "Bridges of 3, 60 epochs each"),
    data=CIFAR,
    published="DEE 2.36 with one bridge, 3.03 with two [NB]",
    why="Any lower NLL counts. Each bridge has the same updates, so that two train twice as long.",
)
def dbn_second_bridge_helps(rows: Rows, bridge: str) -> Check:
    """A second bridge to further members lowers the NLL again."""
    return rows.gap("nll", f"{bridge}@5", f"{bridge}@3").below(0)


@PAPER.claim(
    "so it does at equal training in all",
    ("2 bridges of 3, 240 epochs in all@5",),
    data="not compared there",
    why="Any lower NLL counts; one bridge trains as long as the two together.",
)
def dbn_second_bridge_helps_at_equal_cost(rows: Rows, bridges: str) -> Check:
    """A second bridge lowers the NLL also where both together train no longer than the one."""
    return rows.gap("nll", bridges, "1 bridge of 3, 240 epochs in all@3").below(0)


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
    "DE before DBN before BN before one network",
    BRIDGES,
    data=CIFAR,
    published="DEE 3, 2.36, 1.90 and 1 (raw NLL) [NB]",
    why="Any difference of raw NLL counts, but each neighbour must differ.",
)
def dbn_ordering(rows: Rows, bridge: str) -> list[Check]:
    """For three members, a deep ensemble is better than DBN, DBN better than BN, and BN better than one network."""
    return _ordered(rows, "nll", bridge)


@PAPER.claim(
    "the same order after temperature scaling",
    BRIDGES,
    data=CIFAR,
    why="The paper states its order in raw NLL alone, which repaired over-confidence moves.",
)
def dbn_ordering_after_scaling(rows: Rows, bridge: str) -> list[Check]:
    """The same order after temperature scaling of each."""
    return _ordered(rows, "cnll", bridge)


@PAPER.claim(
    "BN stays below two members",
    ("BN (medium)",),
    data=CIFAR,
    published="DEE 1.90 (raw NLL) [NB]",
    why="The bound is the claim's own.",
)
def dbn_bn_below_two(rows: Rows, bn: str) -> Check:
    """A Bridge Network with two bridges stays below two members of a deep ensemble."""
    return rows.value("dee_raw", f"{bn}@3").below(2)


@PAPER.claim(
    "further bridges do not help BN",
    ("BN (medium)",),
    data=CIFAR,
    published="DEE 1.90 with two bridges, 1.95 with four, 1.94 with six [NB]",
    why="The NLL may fall by 0.01 nats; the published fall is 0.004.",
)
def dbn_bn_saturates(rows: Rows, bn: str) -> Check:
    """Further bridges do not help a Bridge Network: four are no better than two."""
    return rows.gap("nll", f"{bn}@5", f"{bn}@3").above(-0.01)


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
    "a network that sees its state is better",
    ("MSE", "KL"),
    see="docs/dbn.md",
    data="assumed in the paper, whose released network does not see it",
    why="Any lower NLL counts; the two networks differ in their logit branch alone.",
)
def dbn_state_helps(rows: Rows, loss: str) -> Check:
    """A score network that sees the state of the diffusion is better than a blind one."""
    return rows.gap("nll", f"DBN (seeing, {loss})@3", f"DBN (blind, {loss})@3").below(0)


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
    "ECE is higher than the ensemble's",
    BRIDGES,
    data="not said for which data",
    published="said of its tables in words, without a number [REV]",
    why="Any higher ECE counts.",
)
def dbn_ece_poor(rows: Rows, bridge: str) -> Check:
    """DBN is worse calibrated than the deep ensemble that it replaces: its ECE is higher."""
    return rows.gap("ece", f"{bridge}@3", "DE@3").above(0)


@PAPER.claim(
    "the same after temperature scaling",
    BRIDGES,
    why="Any higher ECE counts.",
    data="not analysed in the paper, though its code computes calibrated ECE",
)
def dbn_ece_poor_after_scaling(rows: Rows, bridge: str) -> Check:
    """That is more than a wrong temperature: after temperature scaling of both, DBN's ECE is still higher."""
    return rows.gap("cece", f"{bridge}@3", "DE@3").above(0)

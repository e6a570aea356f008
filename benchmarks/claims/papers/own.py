"""Claims of this project on its own rows."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "own",
    "This project",
    "What this project's reports say of its own rows",
    "",
    "Nobody else's figures stand next to these. Training cost is in the suites' reports.",
)


JPEG = "CIFAR-10 (JPEG)"
DIGITS = "digits"
FIELD = f"{JPEG}, {DIGITS}"
ONE_TRAINING = (
    "FGE@3", "FGE@8", "Snapshots@3", "Snapshots@8", "cSGLD@8", "SWAG@8", "Packed@4", "BatchEnsemble@4",
    "Masksembles@4", "MIMO@2", "MC dropout (blocks)@8", "MC BatchNorm@8", "SWA@1",
)  # fmt: skip
CHEAP = ("DBN (blind, KL)@3", "Direct (blind, KL)@3", "ED + bridge@8", "ED (from source)@8", "ED (48 epochs)@8")


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
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


@PAPER.claim(
    "averaged logits calibrate better",
    tuple(f"DE (logits)@{size}" for size in (3, 5, 8)),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts; both have one temperature, fitted on validation.",
)
def own_averaged_logits(rows: Rows, ensemble: str) -> Check:
    """After temperature scaling, a deep ensemble's averaged logits have a lower NLL than its averaged
    probabilities."""
    return rows.gap("cnll", ensemble, ensemble.replace("DE (logits)", "DE")).below(0)


@PAPER.claim(
    "one training is worth less than two members",
    ONE_TRAINING,
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any higher calibrated NLL counts. They run as one to eight networks; training is in the reports.",
)
def own_one_training_below_two(rows: Rows, ensemble: str) -> Check:
    """After temperature scaling, an ensemble or mean of weights from one training has a higher NLL than two members."""
    return rows.gap("cnll", ensemble, "DE@2").above(0)


@PAPER.claim(
    "a student beats ensembles of one training",
    (*(f"ED@5 and {name}" for name in ONE_TRAINING), *(f"ED (48 epochs)@8 and {name}" for name in ONE_TRAINING)),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts. The student runs as one network and they as one to eight, but its teachers "
    "have to be trained: five on digits, eight on CIFAR-10 (JPEG), where it has 48 epochs. It has mixup, they have "
    "not.",
)
def own_student_before_one_training(rows: Rows, pair: str) -> Check:
    """After temperature scaling, a student of a deep ensemble has a lower NLL than an ensemble or mean of weights from
    one training."""
    return rows.gap("cnll", *pair.split(" and ")).below(0)


@PAPER.claim(
    "one teacher an image is enough",
    ("ED (one teacher an image)@5", "ED (one teacher an image)@8"),
    data=DIGITS,
    see="docs/cheap-ensembles.md",
    why="The calibrated NLL may differ by 0.01 nats, a tenth of what the members gain there.",
)
def own_one_teacher_an_image(rows: Rows, student: str) -> Check:
    """A student that asks one teacher for each image, drawn anew, learns as much as one that asks all."""
    return rows.gap("cnll", student, student.replace(" (one teacher an image)", "")).within(0.01)


@PAPER.claim(
    "cheap teachers teach more than mixup",
    ("ED of FGE@8", "ED of MC dropout@8", "ED of two views@1"),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts, against a network that learns from labels with the same mixup, as long. Two "
    "views are the source on an image and its mirror image.",
)
def own_cheap_teachers(rows: Rows, student: str) -> Check:
    """After temperature scaling, a student of an ensemble from one training has a lower NLL than a network that learns
    from labels with the student's mixup."""
    labels = "From source, labels alone@1" if "views" in student else "Single (students' recipe)@1"
    return rows.gap("cnll", student, labels).below(0)


@PAPER.claim(
    "eight teachers teach more than three",
    ("ED@8 and ED@3", "ED (from source)@8 and ED (from source)@3"),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts. The learning rate was chosen for each size on digits, for eight teachers on "
    "CIFAR-10 (JPEG).",
)
def own_more_teachers(rows: Rows, pair: str) -> Check:
    """After temperature scaling, a student of eight teachers has a lower NLL than a student of three."""
    return rows.gap("cnll", *pair.split(" and ")).below(0)


@PAPER.claim(
    "a head for each teacher beats their mean",
    ("Hydra@8 and ED@8", "Hydra (linear heads)@8 and ED (from source)@8"),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts; both train as long. On digits heads are blocks, for 3.1 times the FLOPs; on "
    "CIFAR-10 (JPEG) they are linear and cost nothing.",
)
def own_heads(rows: Rows, pair: str) -> Check:
    """After temperature scaling, a student with a head for each teacher has a lower NLL than a student of their
    mean."""
    return rows.gap("cnll", *pair.split(" and ")).below(0)


@PAPER.claim(
    "averaged weights make a better student",
    ("ED (averaged)@8 and ED (from source)@8",),
    data=JPEG,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts; both have ten epochs and the same teachers, images and peak rate.",
)
def own_averaged_student(rows: Rows, pair: str) -> Check:
    """After temperature scaling, a student with the mean of its last weights at a constant rate has a lower NLL than
    one whose rate falls to zero."""
    return rows.gap("cnll", *pair.split(" and ")).below(0)


@PAPER.claim(
    "a flow over logits is better than its student",
    ("EDFM (on ED)@3", "EDFM (on ED)@8"),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="Any lower calibrated NLL counts. The flow reads the features of that student and adds its own training.",
)
def own_flow_beats_student(rows: Rows, flow: str) -> Check:
    """After temperature scaling, EDFM has a lower NLL than the distilled student that it starts from."""
    return rows.gap("cnll", flow, flow.replace("EDFM (on ED)", "ED")).below(0)


@PAPER.claim(
    "a student is better than its eight teachers",
    ("ED, 240 epochs@8", "ED, 960 epochs@8", "ED (48 epochs)@8"),
    data=FIELD,
    see="docs/patience.md",
    why="Any lower calibrated NLL counts. The FLOPs may be 1.005×, which is shown as 1.00×. On digits students train "
    "four and sixteen times as long as a member, on CIFAR-10 (JPEG) 0.8 times. They have mixup and their teachers have "
    "not; on digits, two networks from labels with the student's mixup are better than these teachers, too.",
)
def own_student_better_than_teachers(rows: Rows, student: str) -> list[Check]:
    """After temperature scaling, and at the FLOPs of one network, a student has a lower NLL than its eight teachers."""
    return [rows.gap("cnll", student, "DE@8").below(0), rows.value("macs_rel", student).below(1.005)]


@PAPER.claim(
    "four times the length makes a better method",
    (
        "ED, 240 epochs@8 and ED, 60 epochs@8",
        "ED, 960 epochs@8 and ED, 240 epochs@8",
        "One bridge, 240 epochs@8 and One bridge, 60 epochs@8",
        "One bridge, 960 epochs@8 and One bridge, 240 epochs@8",
    ),
    data=DIGITS,
    see="docs/patience.md",
    why="Any lower NLL counts. The learning rate is the same for all lengths.",
)
def own_longer(rows: Rows, pair: str) -> Check:
    """A student or bridge that trains four times as long has a lower NLL."""
    return rows.gap("nll", *pair.split(" and ")).below(0)


@PAPER.claim(
    "Laplace is a temperature",
    ("Last-layer Laplace (probit)@1", "Laplace (probit)@1"),
    data=FIELD,
    see="docs/cheap-ensembles.md",
    why="The calibrated NLL may be lower by 0.005 nats.",
)
def own_laplace_is_a_temperature(rows: Rows, laplace: str) -> Check:
    """After temperature scaling, Laplace's approximation over the last layer gains nothing over one network."""
    return rows.gap("cnll", laplace, "DE@1").above(-0.005)

"""Claims of B-DENSE (2026) on step distillation with branches."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "b-dense",
    "B-DENSE",
    "B-DENSE, dense supervision of step distillation with a K-branch student (ICLR 2026 DeLTa workshop)",
    "2602.15971",
    "The paper is about image generation and measures FID. On bridges a verdict speaks of our transfer: the one-step "
    "student also predicts the intermediate states of its teacher. Students with and without branches learn from the "
    "true ensemble with the same share.",
)

IMAGES = "CIFAR-10 images"


FID = "FID 20.81 against 39.66 (progressive distillation, 128 steps); 4.40 against 4.53 (SFD, two evaluations) [A]"
PLAIN = {
    "DBN (B-DENSE)@3": "Plain distillation@3",
    "Branches, K = 4, alpha 0.2@3": "Distilled, alpha 0.2@3",
    "Branches, K = 4, alpha 0.8@3": "Distilled, alpha 0.8@3",
}
SAMPLERS = {
    f"{branches}, 2 steps@1": f"{plain}, 2 steps@1"
    for branches, plain in (("Branches", "Distilled"), ("PD + branches", "PD"), ("SFD + branches", "SFD"))
}


@PAPER.claim(
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


@PAPER.claim(
    "no cost at inference",
    (*PLAIN, *SAMPLERS),
    data=IMAGES,
    why="One thousandth of a network's FLOPs.",
    published="about 0.01 % more parameters in training, none at inference [B]",
)
def b_dense_no_cost(rows: Rows, student: str) -> Check:
    """It costs nothing at inference: only the branch of the end point is kept."""
    return rows.gap("macs_rel", student, (PLAIN | SAMPLERS)[student]).within(0.001)


@PAPER.claim(
    "branches help a sampler of few steps",
    ("1 step", "2 steps", "4 steps"),
    data=IMAGES,
    published=FID,
    caveats=dict.fromkeys(
        ("mixture2d", "digits-diffusion"), "One weighting of the branches; digits-steps and cifar10-steps have others."
    ),
    why="Any smaller energy distance counts; the FLOPs must be the same to one thousandth. Progressive distillation in "
    "rounds of K = 2.",
)
def b_dense_sampler(rows: Rows, steps: str) -> list[Check]:
    """Taught its teacher's intermediate states as well, a sampler of few steps draws better samples at the same
    cost."""
    mine, plain = f"Branches, {steps}@1", f"Distilled, {steps}@1"
    return [rows.gap("energy", mine, plain).below(0), rows.gap("macs_rel", mine, plain).within(0.001)]


STEPS, LENGTHS = ("8 steps", "4 steps", "2 steps"), ("25 updates", "50 updates")
OTHERS = ("2 steps, a = 2", "a = -2", "a = 1", "a = 2", "a = 4", "1:1:1:3", "full update")
SUITES = "digits-steps and cifar10-steps: small networks, classifier-FD on 5,000 samples, five repetitions."


def _against_plain(rows: Rows, base: str, setting: str) -> list[Check]:
    """Classifier-FD and cost of a student with branches, minus those of the plain one of as many steps and updates."""
    mine = f"{base} + branches, {setting}@1"
    steps = setting.split(",")[0]
    plain = f"{base}, {steps if steps in (*STEPS, *LENGTHS) else '4 steps'}@1"
    return [rows.gap("fd", mine, plain).below(0), rows.gap("macs_rel", mine, plain).within(0.001)]


@PAPER.claim(
    "branches help progressive distillation",
    (*STEPS, *OTHERS),
    data=IMAGES,
    published="FID 20.81 against 39.66 (128 steps), K = 2 [A]",
    see="docs/branches.md",
    why="Any smaller classifier-FD counts, at equal updates and the same teacher; the FLOPs must be the same to one "
    f"thousandth. Steps have even weights; other settings are at one number of steps. {SUITES}",
)
def b_dense_progressive(rows: Rows, setting: str) -> list[Check]:
    """Progressive distillation whose student also learns the intermediate states draws better samples."""
    return _against_plain(rows, "PD", setting)


@PAPER.claim(
    "branches help SFD",
    (*STEPS, *OTHERS),
    data=IMAGES,
    published="FID 4.40 against 4.53 (two evaluations), K = 4 [A]",
    see="docs/branches.md",
    why="As for progressive distillation.",
)
def b_dense_sfd(rows: Rows, setting: str) -> list[Check]:
    """SFD, which distils along the student's own path from noise, draws better samples with branches."""
    return _against_plain(rows, "SFD", setting)


@PAPER.claim(
    "branches help in the earliest updates",
    tuple(f"{base}, {length}" for base in ("PD", "SFD") for length in LENGTHS),
    data=IMAGES,
    see="docs/branches.md",
    why="Any smaller classifier-FD counts, after a short training of its own with its own cosine schedule.",
)
def b_dense_early(rows: Rows, setting: str) -> list[Check]:
    """Branches help most where training has been short."""
    base, _, length = setting.partition(", ")
    return _against_plain(rows, base, length)

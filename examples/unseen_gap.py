"""Is a student as near to its teachers on images that none of them was trained on?

Prints accuracy, NLL, mean entropy and the divergence KL(teachers || method) in nats of every method of one repetition,
on training and on validation images as they are, without crops or flips.  Networks come from a store and from what is
released:

    python examples/unseen_gap.py cifar10-cpu --images 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.commands.common import load_plan
from benchmarks.export.folder import predictor_payload
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.data.dataset import Split
from dbn_core.errors import SpecError
from dbn_core.methods.evaluation import predict_split
from dbn_core.tasks.class_scores import score_arrays

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("suite", help="a built-in suite, or the path of a TOML file; of classification")
parser.add_argument("--images", type=int, default=2000, help="how many of each split")
parser.add_argument("--repetition", type=int, default=1)
parser.add_argument("--store", type=Path, default=Path("results/store"))
asked = parser.parse_args()

torch.set_num_threads(1)
plan, store = load_plan(asked.suite, asked.store, None, None, None)
bench = ArtefactBuilder(plan.suite, store, "cpu", asked.repetition - 1)
cells = [cell for cell in plan.cells if cell.repetition == asked.repetition - 1]
teachers = max((cell for cell in cells if cell.is_reference), key=lambda cell: cell.size)
cells = [teachers, *(cell for cell in cells if cell is not teachers and not (cell.is_reference and cell.size > 1))]

for name in ("train", "validation"):
    whole = getattr(bench.data, name)
    split = Split(whole.images[: asked.images], whole.labels[: asked.images])
    target = None
    print(f"{name}: {len(split)} images")
    for cell in cells:
        try:
            payload = predictor_payload(plan, store, cell)
        except SpecError:
            print(f"  {cell.label}@{cell.size}: its weights are not in the store")
            continue
        terms = predict_split(bench.predictor(payload), split, bench.device)
        terms = terms.reshape(-1, *terms.shape[-2:])  # of a single term the first axis may be missing
        scores = score_arrays({"test": terms.numpy(), "test_labels": split.labels.numpy()})
        log_p = scores.log_probs
        target = log_p if target is None else target
        entropy = -(np.exp(log_p) * log_p).sum(1).mean()
        gap = (np.exp(target) * (target - log_p)).sum(1).mean()
        print(
            f"  {cell.label}@{cell.size}: accuracy {100 * scores.examples['acc'].mean():.2f} %, "
            f"NLL {scores.examples['nll'].mean():.4f}, entropy {entropy:.4f}, "
            f"KL({teachers.label}-{teachers.size} || .) {gap:.4f}"
        )

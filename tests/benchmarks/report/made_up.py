"""Result files of a made-up suite, for tests of what is made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.report.model import classification

NAN, INF = float("nan"), float("inf")
ODD = "a_b & c%"  # a label that LaTeX, HTML and Markdown all could trip over

#         label, method, family, size, nll, cnll, acc, macs_rel
DE_NLL = [0.1210, 0.0905, 0.0806, 0.0762, 0.0735, 0.0718, 0.0706, 0.0698]
METHODS = [
    *[("DE", "de", "de", m + 1, nll, nll * 0.97, 0.9660 + 0.011 * m / (m + 2), m + 1) for m, nll in enumerate(DE_NLL)],
    ("ED", "ed", "ed", 3, 0.1280, 0.1120, 0.9675, 1.0),
    ("ED", "ed", "ed", 5, 0.1310, 0.1105, 0.9681, 1.0),
    ("END²", "end2", "end2", 3, 0.1420, 0.1190, 0.9662, 1.0),
    ("END²", "end2", "end2", 5, 0.1450, 0.1210, 0.9658, 1.0),
    ("BN", "bn", "bn", 2, 0.1010, 0.0960, 0.9688, 1.21),
    ("BN", "bn", "bn", 3, 0.0975, 0.0930, 0.9695, 1.41),
    ("BN", "bn", "bn", 5, 0.0962, 0.0921, 0.9697, 1.82),
    ("DBN (fixed)", "dbn[preset=fixed]", "dbn", 3, 0.0861, 0.0828, 0.9712, 1.17),
    ("DBN (fixed)", "dbn[preset=fixed]", "dbn", 5, 0.0825, 0.0800, 0.9720, 1.33),
    ("DBN (paper)", "dbn[preset=paper]", "dbn", 3, 0.0905, 0.0850, 0.9706, 1.17),
    ("DBN (paper)", "dbn[preset=paper]", "dbn", 5, 0.0880, 0.0835, 0.9709, 1.33),
    (ODD, "odd", "odd", 5, 0.0660, 0.0655, 0.9600, NAN),
]


def _dee(nll: float, curve: list[float]) -> float:
    if nll > curve[0]:
        return -INF
    return float(np.interp(-nll, [-v for v in curve], range(1, len(curve) + 1))) if nll >= curve[-1] else INF


def _summary_row(row: tuple, n: int) -> dict[str, object]:
    label, method, family, size, nll, cnll, acc, rel = row
    means = {"acc": acc, "nll": nll, "brier": nll * 0.45, "ece": 0.004 + nll * 0.05, "cnll": cnll}
    means |= {"ece_debiased": nll * 0.05, "cece_debiased": -0.001}
    means |= {"cbrier": cnll * 0.45, "cece": 0.004, "temperature": 1.1, "kl_to_ensemble": nll / 3}
    means |= {"augrc": 0.15 * nll, "aurc": 0.18 * nll, "risk80": 0.3 * nll, "smece": 0.05 * nll, "csmece": 0.003}
    means |= {"mutual_information": NAN if size == 1 else 0.05, "disagreement": NAN if size == 1 else 0.08}
    means |= {"lac_size": 1 + 0.2 * nll, "lac_coverage": 0.951}
    half = {"acc": 0.0012, "ece": 0.0006, "cece": 0.0005, "temperature": 0.02}
    out: dict[str, object] = {"method": method, "label": label, "family": family, "size": size, "n": n}
    for score, about in classification()["scores"].items():
        width = half.get(score, 0.0021) if n > 1 else NAN
        out |= {
            f"{score}_mean": means[score],
            f"{score}_low": means[score] - width,
            f"{score}_high": means[score] + width,
        }
        if about["better"]:
            out[f"{score}_mark"] = {"DBN (fixed)5": "best", "DBN (paper)5": "tied"}.get(f"{label}{size}", "")
    curves = {"raw": (nll, DE_NLL), "cal": (cnll, [v * 0.97 for v in DE_NLL]), "augrc": (nll, DE_NLL)}
    for kind, (value, curve) in curves.items():
        out[f"dee_{kind}"] = float(size) if family == "de" else _dee(value, curve)
        for end, shift in (("low", 0.0021), ("high", -0.0021)):
            out[f"dee_{kind}_{end}"] = NAN if family == "de" or n == 1 else _dee(value + shift, curve)
        for end, shift in (("", 0), ("_low", 0.0021), ("_high", -0.0021)):
            above = value + shift - 0.066
            out[f"dee_{kind}_fit{end}"] = 0.055 / above if above > 0 else INF
    single = family == "de"
    own = {"de": 61.0 * size, "ed": 70.0, "end2": 82.0, "bn": 45.0 * (size - 1), "dbn": 260.0}.get(family, NAN)
    return out | {
        **{"params": 272_474 * rel, "params_rel": rel, "macs": 4.1e7 * rel, "flops": 8.2e7 * rel, "macs_rel": rel},
        **{"latency_b1_p50_ms": 3.1 * rel, "latency_b1_p95_ms": 3.6 * rel, "latency_b1_ratio": rel * 1.08},
        **{"latency_batch_ratio": rel * 1.02, "throughput_examples_per_s": 900 / rel, "latency_noisy": family == "bn"},
        **{"train_seconds": own, "train_seconds_with_members": own if single else own + 61.0 * size},
        **{"student_passes": 1e6, "teacher_passes": NAN if single else 1e6 * size},
    }


def _reliability(row: tuple, rng: np.random.Generator) -> list[dict[str, object]]:
    label, method, family, size = row[:4]
    share = np.array([0, 0, 0, 1, 3, 6, 9, 14, 20, 28, 40, 58, 95, 210, 4900])
    out = []
    for calibrated, slope in ((False, 0.10), (True, 0.02)):
        for b, count in enumerate(share):
            confidence = (b + 0.6) / 15 if count else NAN
            accuracy = confidence - slope * (1 - confidence) * 2 + rng.normal(0, 0.015)
            name = {"method": method, "label": label, "family": family, "size": size, "calibrated": calibrated}
            edges = {"bin": b, "lower": b / 15, "upper": (b + 1) / 15, "count": count}
            out.append(name | edges | {"confidence": confidence, "accuracy": accuracy})
    return out


def write_results(folder: Path, methods: list[tuple] = METHODS, n: int = 3) -> Path:
    """Write plausible results of a suite: censored equivalents, missing costs, a failed cell, odd labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    summary = pd.DataFrame([_summary_row(row, n) for row in methods])
    rows = [
        {"suite": "digits", "method": m, "label": label, "family": f, "size": size, "repetition": r}
        | {"split": "test", "metric": metric, "value": value + rng.normal(0, 0.001)}
        for label, m, f, size, nll, cnll, acc, _ in methods
        for r in range(n)
        for metric, value in (("acc", acc), ("nll", nll), ("cnll", cnll))
    ]
    comparisons = [
        {"method": m, "label": label, "size": size, "reference": reference, "metric": metric}
        | {"difference": d, "low": d - 0.004, "high": d + 0.004, "p_value": min(1.0, math.exp(-abs(d) * 600))}
        | {"p_holm": min(1.0, 1.5 * math.exp(-abs(d) * 600))}
        for label, m, f, size, nll, cnll, acc, _ in methods
        if f != "de"
        for reference, at in (("DE-1", 0), (f"DE-{size}", size - 1))
        for metric, d in (("nll", nll - DE_NLL[at]), ("cnll", cnll - 0.97 * DE_NLL[at]), ("acc", acc - 0.966))
    ]
    tables = {"summary": summary, "rows": pd.DataFrame(rows), "comparisons": pd.DataFrame(comparisons)}
    tables["reliability"] = pd.DataFrame([line for row in methods for line in _reliability(row, rng)])
    tables["risk_coverage"] = pd.DataFrame(
        {"method": m, "label": label, "family": f, "size": size, "coverage": c / 10, "risk": (1 - acc) * (c / 10) ** 3}
        for label, m, f, size, _, _, acc, _ in methods
        for c in range(1, 11)
    )
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    meta = {
        "suite": "digits",
        "title": "Digits: <fast> ensembling",
        "description": "8x8 handwritten digits, small ResNets with filter response normalisation; runs on a laptop.",
        "command": "dbn-bench run digits",
        "report_command": "dbn-bench report digits",
        "date": "2026-01-31",
        "dataset": {
            "title": "scikit-learn digits",
            "fingerprint": "0123456789abcdef0123",
            "train": 1097,
            "classes": 10,
        },
        "network": "resnet[depth=8,width=16]",
        "repetitions": n,
        "budget": ["members: 60 epochs of SGD, batch 64", "distillation and bridges: 120 epochs of Adam, batch 64"],
        "protocol": ["temperatures are fitted on the validation split; nothing is selected on the test split"],
        "versions": {"python": "3.11.9", "torch": "2.15.0", "dbn-bench": "0.1.0"},
        "hardware": {"cpu": "an x86-64 processor", "cores": 2, "gpu": None, "threads_per_process": 1},
        "latency": {"batch_size": 256, "batch_repeats": 20, "noisy": True},
        "failures": [{"cell": "digits/end2/size=8/rep=1", "reason": "loss became <NaN> at step 120"}],
        "dee": {"max_size": 8},
        "statistics": ["Intervals are of 95 %, by <Student>.", "They speak of other pools."],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def change_meta(folder: Path, **values: Any) -> Path:
    """Change values of ``meta.json``."""
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | values))
    return folder

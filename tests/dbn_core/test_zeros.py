"""A suite with a method that predicts probabilities of exactly zero."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.run import Options, run_suite
from benchmarks.suite.load import load_suite
from dbn_core import Method, register
from tests.support import tiny


class Voting(nn.Module):
    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([member(images) for member in self.members])
        votes = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return votes.float().mean(0).log()


class Vote(Method):
    """The share of members that vote for a class."""

    title = "Vote"

    def members(self, size: int) -> tuple[int, ...]:
        return tuple(range(size))

    def predictor(self, size: int, context: Any) -> nn.Module:
        return Voting([context.members[position] for position in range(size)])


@pytest.mark.usefixtures("clean_registry")
def test_a_majority_vote_is_scored_and_reported(tmp_path: Path) -> None:
    register("vote")(Vote)
    (tmp_path / "tiny.toml").write_text(tiny.HEAD + tiny.DE + '[[methods]]\nuse = "vote"\nsizes = [2]\n')
    options = Options(store=tmp_path / "store", rows=tmp_path / "rows", reports=tmp_path / "reports", jobs=0)
    assert not run_suite(load_suite(str(tmp_path / "tiny.toml")), options, lambda event: None).failures
    [folder] = (path.parent for path in (tmp_path / "rows").rglob("summary.csv"))
    [vote] = pd.read_csv(folder / "summary.csv").query("label == 'Vote'").to_dict("records")
    unknown = {name for name, value in vote.items() if name.endswith("_mean") and not np.isfinite(value)}
    assert unknown == {"mutual_information_mean", "disagreement_mean"}  # of one term there is none
    assert vote["nll_mean"] > 5
    statistics = json.loads((folder / "meta.json").read_text())["statistics"]
    [zeros] = [line for line in statistics if "exactly 0" in line]
    assert zeros.startswith("Vote of size 2: ")
    [report] = (tmp_path / "reports").rglob("report.md")
    assert zeros in report.read_text()

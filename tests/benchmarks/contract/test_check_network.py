"""``check-network``: good networks pass, each kind of broken one fails its check in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cli import main
from benchmarks.contract.network import NetworkSubject, check_one_network, check_other_sizes, fitting_methods
from dbn_core.nets.plugins import register_network
from dbn_core.nets.spec import classifier_spec

pytestmark = pytest.mark.usefixtures("clean_registry")


class Plain(nn.Module):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.classes = classes
        self.conv, self.out = nn.Conv2d(channels, 4, 3, 1, 1), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).relu().mean((2, 3)))


class Tuples(Plain):
    def forward(self, x):
        return super().forward(x), x


class Narrow(Plain):
    def forward(self, x):
        return super().forward(x)[:, 1:]


class Infinite(Plain):
    def forward(self, x):
        return super().forward(x) / 0


class Softmax(Plain):
    def forward(self, x):
        return super().forward(x).softmax(1)


class LogSoftmax(Plain):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


class Blind(Plain):
    def forward(self, x):
        return super().forward(torch.zeros_like(x))


class Drops(Plain):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x))


class Batchy(Plain):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class OwnDraws(Plain):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.out.weight.data.copy_(torch.from_numpy(np.random.default_rng().normal(size=(classes, 4))))


class Constant(Plain):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class Hidden(Plain):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.scale = float(torch.rand(()))

    def forward(self, x):
        return super().forward(x) * self.scale


class Sparse(Plain):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.register_buffer("index", torch.eye(3).to_sparse())


class Frozen(Plain):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.requires_grad_(False)

    def forward(self, x):
        return super().forward(x).requires_grad_(torch.is_grad_enabled())


class Outside(Plain):
    def forward(self, x):
        return super().forward(x) + torch.from_numpy(x.detach().numpy().mean((1, 2, 3)))[:, None]


class Branches(Plain):
    def forward(self, x):
        return super().forward(x) * (2 if x.sum() > 0 else 1)


class InPlace(Plain):
    def forward(self, x):
        return super().forward(x.mul_(2))


class Repeats(nn.Module):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.same = nn.Linear(64, 64)
        self.weight = nn.Parameter(torch.randn(classes, 64))

    def forward(self, x):
        return self.same(self.same(x.mean(1).flatten(1)).relu()) @ self.weight.T


def registered(build: type[nn.Module]) -> NetworkSubject:
    name = f"its-{build.__name__.lower()}"
    register_network(name)(build)
    return NetworkSubject(classifier_spec({"name": name}), 3, (8, 8), 4)


def broken(build: type[nn.Module]) -> dict[str, str]:
    return {result.name: result.sentence for result in check_one_network(registered(build)) if result.outcome == "FAIL"}


@pytest.mark.parametrize(
    ("build", "check", "words"),
    [
        (Tuples, "returns finite", "return logits"),
        (Narrow, "returns finite", r"returns \(5, 3\)"),
        (Infinite, "returns finite", "are not finite"),
        (Softmax, "returns finite", "returns probabilities: leave out its last softmax and return logits"),
        (LogSoftmax, "returns finite", "returns log-probabilities: leave out its last log_softmax"),
        (Blind, "returns finite", "ignores them"),
        (Drops, "gives the same logits", "switch dropout off"),
        (Batchy, "gives the same logits", "with the rest of the batch"),
        (OwnDraws, "has the same weights", "'body.out.weight' differs between two networks of one seed"),
        (Constant, "has the same weights", "two seeds give the same weights"),
        (Hidden, "is stored and loaded", "register all"),
        (Sparse, "is stored and loaded", "cannot be stored"),
        (Frozen, "gets finite gradients", "changes no weight"),
        (Outside, "has multiply-adds", "leaves torch through numpy"),
        (Branches, "is exported", "branch"),
        (Repeats, "has nodes", "no submodule runs exactly once"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_promise_is_one_sentence(build: type[nn.Module], check: str, words: str) -> None:
    failed = broken(build)
    found = next((sentence for name, sentence in failed.items() if name.startswith(check)), None)
    assert found is not None, failed
    assert re.search(words, found), found
    assert "\n" not in found


def test_input_that_is_changed_in_place_is_only_the_network_s_own() -> None:
    """Normalisation comes first and makes a copy: images of the harness are safe."""
    assert not broken(InPlace)


def test_built_in_networks_and_plain_ones_keep_the_contract_and_are_told_their_methods() -> None:
    for subject in (
        registered(Plain),
        NetworkSubject(classifier_spec({"name": "resnet8", "channels": 4, "width": 1.0}), 1, (8, 8), 4),
    ):
        results = list(check_one_network(subject))
        assert {result.outcome for result in results} == {"ok"}, results
        fitting, others = fitting_methods(subject)
        assert {"de", "ed", "dbn", "hydra", "laplace"} <= set(fitting)
        assert ("bn" in others) == ("mimo" in others) == (not subject.spec.splits)
        assert "has no BatchNorm" in others["mc-batchnorm"] or "BatchNorm statistics" in others["mc-batchnorm"]
    nodes = results[-1].sentence
    assert nodes == "block0 4 x 8 x 8; block1 4 x 8 x 8; block2 8 x 4 x 4; block3 16 x 2 x 2"


def test_maps_of_one_pixel_are_remarked_with_the_remedy() -> None:
    def note(**options: int) -> str:
        spec = classifier_spec({"name": "torchvision:resnet18", **options})
        return check_other_sizes(NetworkSubject(spec, 3, (8, 8), 4))

    assert "12 of 17 convolutions give maps of one pixel: set [network] input_size = 32" in note()
    assert "one pixel" not in note(input_size=64)
    assert "one pixel" not in check_other_sizes(registered(Plain))


def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["dbn-bench", "check-network", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


PLUGIN = """
from torch import nn
from dbn_core import register_network

@register_network("tiny")
class Tiny(nn.Sequential):
    def __init__(self, classes, channels, width=4):
        super().__init__(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, classes))
"""


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.py").write_text(PLUGIN)
    size = ("--image", "1x8x8", "--classes", "3")
    code, out, _ = ask(monkeypatch, capsys, str(tmp_path / "tiny.py"), *size)
    assert code == 0
    assert "'tiny' keeps the contract." in out
    code, out, err = ask(monkeypatch, capsys, "tiny", "--set", "options.width=six", *size)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["tiny[width=six]:", "FAIL", "Network", "skip"]
    assert out.splitlines()[-1].startswith("skip  10 checks: the same failure as of 'is built")
    assert "Network 'tiny' cannot be built" in out
    assert err == "Error: 'tiny[width=six]' breaks 1 of 11 promises, and 10 were not checked: correct them.\n"
    for words, sentence in (
        (("resnet9",), "unknown network 'resnet9'"),
        (("timm:resnet10t", "--set", "wdith=2"), "has no key 'wdith'"),
        (("resnet8", "--set", "channels=0"), "[network] channels is 0"),
        (("resnet8", "--image", "32"), "write channels, height and width"),
        ((str(tmp_path / "no.py"),), "does not exist"),
        ((str(tmp_path / "no.toml"),), "does not exist"),
    ):
        code, _, err = ask(monkeypatch, capsys, *words)
        assert code == 1
        assert sentence in err

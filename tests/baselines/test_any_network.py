"""Every method of classification on networks that are not built in: it works, or says beforehand that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.contract.check import check_cost, check_fit, check_members_stay_frozen, check_predictions
from benchmarks.contract.subject import Subject, make_subject
from benchmarks.suite.facts import DataFacts
from benchmarks.suite.load import load_suite
from benchmarks.work.preflight import check_networks
from dbn_core.errors import BenchError, SpecError
from dbn_core.measure.deploy import deployable
from dbn_core.methods.registry import methods, parse_method
from dbn_core.nets.modules import ModuleNetwork
from dbn_core.nets.plugins import register_network
from dbn_core.nets.spec import classifier_spec

VIT = {
    "name": "timm:vit_tiny_patch16_224",
    "options": {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
}
RESNET = {"name": "timm:resnet10t", "options": {"channels": [4, 4, 8, 8], "stem_width": 4}}  # with BatchNorm
WIDE = {"name": "wrn10-1", "channels": 4}
NODES = {"vit": "blocks.0", "resnet": "layer1", "wide": "block1"}
NETWORKS: dict[str, dict[str, Any]] = {"vit": VIT, "resnet": RESNET, "wide": WIDE}
# What shortens a trial, or makes it stable at the trial's learning rate.
SHORT = {
    "cycles": "cycles=2,cycle_epochs=1",
    "dbn": "score_network=mini",
    "direct": "score_network=mini",
    "distil": "teacher=cycles[cycle_epochs=1,cycles=2]",
    "edfm": "draws=2,intervals=2,flow_width=8",
    "gaussian": "lr_scale=0.02",
    "mc-batchnorm": "samples=2,batch_size=8",
    "mimo": "repeat=1",
    "student-bridge": "score_network=mini",
    "swa": "epochs=2",
    "swag": "epochs=2,samples=2,rank=2",
}
NAMES = [name for name, cls in methods().items() if cls.task == "classification"]


def on(name: str, network: str) -> str:
    """A spec that reads features where the network has them."""
    options = [SHORT[name]] if name in SHORT else []
    fields = type(parse_method(name).config).model_fields
    if "split_at" in fields and (network == "wide" or name not in ("hydra", "perturbed")):
        options.append(f"split_at={NODES[network]}")
    return f"{name}[{','.join(options)}]"


def subject(name: str, network: str) -> Subject:
    """A method at its smallest size, with members of that network."""
    made = make_subject(parse_method(on(name, network)), classifier_spec(NETWORKS[network]))
    made.sizes = made.sizes[:1]
    return made


def ask(name: str, network: str) -> None:
    """What a suite asks of a method before anything is trained."""
    method = parse_method(on(name, network))
    method.check_network(classifier_spec(NETWORKS[network]))
    if network != "wide":
        method.check_built(subject("single", network).members[0], torch.rand(2, 1, 8, 8))


def refusal(name: str, network: str) -> str:
    """Why a method does not work on a network; nothing if it does."""
    cls = methods()[name]
    if network != "wide" and (cls.needs_split or cls.needs_blocks):
        return "cuts networks after a block" if cls.needs_split else "changes layers within the blocks"
    return "has no BatchNorm" if network == "vit" and cls.needs_batchnorm else ""


# All methods on a transformer; with BatchNorm, and on wide ResNets, those that look inside or keep statistics.
INSIDE = [n for n in NAMES if methods()[n].needs_last_layer or n in ("hydra", "dbn")]
CASES = [(name, "vit") for name in NAMES]
CASES += [(name, "resnet") for name in NAMES if name in INSIDE or refusal(name, "resnet")]
CASES += [(name, "resnet") for name in ("de", "ed", "mc-batchnorm", "student-bridge", "swag")]
CASES += [(name, "wide") for name in NAMES if name in INSIDE or refusal(name, "vit")]


@pytest.mark.parametrize(("name", "network"), CASES)
def test_a_method_works_or_says_beforehand_that_it_does_not(name: str, network: str) -> None:
    if words := refusal(name, network):
        with pytest.raises(SpecError, match=f"{name}.*{words}.*remove the method"):
            ask(name, network)
        return
    ask(name, network)
    tried = subject(name, network)
    check_fit(tried)
    check_members_stay_frozen(tried)
    check_predictions(tried)
    if name in INSIDE:
        check_cost(tried)


@pytest.mark.parametrize("name", ["laplace", "mc-dropout", "hydra"])
def test_the_deployable_form_is_the_same_function(name: str) -> None:
    predictor, images = subject(name, "resnet").predictor(1), torch.rand(3, 1, 8, 8)
    folded = deployable(predictor, images)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules()) < 5
    outputs = []
    for each in (predictor, folded):
        torch.manual_seed(0)
        outputs.append(each(images))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


def test_hydra_s_heads_start_apart_and_the_body_is_shared() -> None:
    context = subject("hydra", "vit").predict_context(1)
    student = parse_method("hydra").student(3, context).eval()
    terms = student(torch.rand(2, 1, 8, 8))
    assert terms.shape == (3, 2, 4)
    assert len(terms.unique(dim=0)) == 3
    one, owned = (sum(p.numel() for p in module.parameters()) for module in (context.new_network(), student))
    assert owned - one == 2 * (8 * 4 + 4)
    with pytest.raises(SpecError, match=r"hydra: 'timm:vit.*' is no chain of blocks, so its heads are linear"):
        parse_method("hydra[split_at=blocks.0]").check_network(context.spec)


# ------------------------------------------------------------------------------------------------ before a run

SUITE = """
title = "T"
[data]
source = "digits"
[network]
{network}
[pool]
members = 3
[recipe]
[students]
epochs = 1
[[methods]]
use = "{method}"
sizes = [{size}]
"""
FACTS = DataFacts("f", "Digits", 1, (8, 8), tuple("0123456789"), {"train": 9, "validation": 9, "test": 9})
VIT_TOML = """
name = "timm:vit_tiny_patch16_224"
options = { img_size = 8, patch_size = 4, embed_dim = 8, depth = 1, num_heads = 2 }
"""


@pytest.mark.parametrize(
    ("network", "method", "words"),
    [
        (VIT_TOML, "dbn", r"dbn: the network has no node 'block1' \(did you mean 'blocks'"),
        (VIT_TOML, "direct[split_at=blocks.0.attn.qkv]", ""),
        (VIT_TOML, "mc-dropout[place=residual]", "place=residual drops channels within residual blocks"),
        ('name = "timm:vit_tiny_patch16_224"', "de", r"fails on images of 1 x 8 x 8 \(.*set input_size"),
        (
            'name = "torchvision:squeezenet1_1"\ninput_size = 32',
            "laplace",
            "laplace: the network has no linear layer of 10",
        ),
        ('name = "torchvision:squeezenet1_1"\ninput_size = 32', "de", ""),
        ('name = "timm:resnet10t"\nmean = [0.5, 0.5]', "de", "fails on images of 1 x 8 x 8"),
        ('name = "resnet8"', "dbn[split_at=block9]", "dbn: the network has no 'block9': choose block0"),
        ('name = "resnet8"', "hydra", "hydra: the network has no 'block12'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    tmp_path: Path, network: str, method: str, words: str
) -> None:
    size = 1 if method.startswith(("de", "laplace", "mc")) else 3
    (tmp_path / "s.toml").write_text(SUITE.format(network=network, method=method, size=size))

    def check() -> None:
        suite = load_suite(str(tmp_path / "s.toml"))
        suite.entries()
        check_networks(suite, FACTS)

    if not words:
        check()
        return
    with pytest.raises(BenchError, match=words):
        check()


class TwoHeads(torch.nn.Module):
    """Its logits are a sum of two layers, so that no single linear layer gives them."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.Linear(64 * channels, classes) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x.flatten(1)) + self.second(x.flatten(1))


@pytest.mark.usefixtures("clean_registry")
def test_a_last_layer_that_others_add_to_is_noticed() -> None:
    register_network("two-heads")(TwoHeads)
    network = ModuleNetwork(classifier_spec({"name": "two-heads"}), 4, 1, (0.5,), (0.5,))
    with pytest.raises(SpecError, match="laplace: the network's logits are not the output of its last linear layer"):
        parse_method("laplace").check_built(network.eval(), torch.rand(2, 1, 8, 8))

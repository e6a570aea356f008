"""Contract tests over a network, built in, of a library or of a plugin: ``dbn-bench check-network``.

Each check is a function whose docstring ends the sentence "a network ...".  It raises :class:`ContractError` with one
sentence for the network's author, or returns a note.  Weights are random: nothing is trained but one step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.contract.promises import CheckResult, ContractError, NotCheckedError, require, run_checks
from benchmarks.work.preflight import run_network
from dbn_core.errors import BenchError, reason
from dbn_core.measure.cost import CostError, measure_cost
from dbn_core.measure.deploy import deployable
from dbn_core.measure.runtimes import RuntimeMissingError, export_program
from dbn_core.methods.registry import methods, parse_method
from dbn_core.nets.init import initialise_
from dbn_core.nets.network import Network, as_map
from dbn_core.nets.spec import NetworkOptions
from dbn_core.rng import generator, seeded
from dbn_core.tasks.classification import Classification
from dbn_core.tensors import check_storable, is_finite

_BATCH = 5
_SIDES = (8, 16, 32, 64)  # of square images that are tried, next to the one that is asked for
_NOTED = 12  # nodes that a note lists


@dataclass
class NetworkSubject:
    """A network under test.

    Attributes:
        spec: what a suite's ``[network]`` says.
        channels, size: of the images, (height, width).
        classes: K.
    """

    spec: NetworkOptions
    channels: int = 3
    size: tuple[int, int] = (32, 32)
    classes: int = 10
    builds: Iterator[int] = field(default_factory=count)

    def build(self, size: tuple[int, int] | None = None) -> Network:
        """A network with the weights that its constructor gives it."""
        normal = (0.5,) * self.channels
        built: Any = Classification().new_network(
            self.spec, self.channels, size or self.size, self.classes, normal, normal
        )
        return built.eval()

    def drawn(self, seed: int = 0) -> Network:
        """A network with weights from a seed; each is built in another state of the global generators."""
        with seeded(torch.device("cpu"), check="network", build=next(self.builds)):
            network = self.build()
        initialise_(network, generator(seed=seed, purpose="check-network"))
        return network.eval()

    @cached_property
    def network(self) -> Network:
        """The one that is looked at."""
        return self.drawn()

    def images(self, batch: int = _BATCH, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Noise in [0, 1], [batch, C, H, W]."""
        shape = (batch, self.channels, *(size or self.size))
        return torch.rand(shape, generator=generator(purpose="check-images"))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Of the network that is looked at; raises BenchError when it fails."""
        return run_network(self.network, images)

    def fixed_logits(self, images: torch.Tensor) -> torch.Tensor:
        """As :meth:`logits`; raises NotCheckedError where two passes differ, which one check reports."""
        logits = self.logits(images)
        if not torch.equal(logits, self.logits(images)):
            raise NotCheckedError("its logits differ from pass to pass")
        return logits


def check_builds(subject: NetworkSubject) -> str:
    """is built from its name and options."""
    parameters = sum(parameter.numel() for parameter in subject.build().parameters())
    require(parameters > 0, "the network has no parameters: nothing can be trained")
    return f"{parameters:,} parameters"


def check_logits(subject: NetworkSubject) -> None:
    """returns finite float32 logits [B, K] for images [B, C, H, W] in [0, 1]."""
    images = subject.images()
    logits = subject.logits(images)
    expected = (len(images), subject.classes)
    require(
        isinstance(logits, torch.Tensor) and tuple(logits.shape) == expected and logits.dtype == torch.float32,
        f"the network returns {_described(logits)}: return float32 logits {list(expected)}",
    )
    require(is_finite(logits), "the logits of an untrained network are not finite: check its initialisation")
    require(torch.equal(images, subject.images()), "the network changes its input images in place: work on a copy")
    require(not torch.equal(logits[0], logits[1]), "two different images have equal logits: the network ignores them")
    draws = torch.cat([logits, run_network(subject.drawn(1), images)])
    for kind, values in (("", draws), ("log-", draws.exp())):
        sums = values.sum(1)
        require(
            not (bool((values >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)),
            f"the network returns {kind}probabilities: leave out its last {kind.replace('-', '_')}softmax and return "
            "logits",
        )


def _described(output: object) -> str:
    if isinstance(output, torch.Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
    return type(output).__name__


def check_other_sizes(subject: NetworkSubject) -> str:
    """takes a batch of one image, and images of the size that is asked for."""
    alone = subject.logits(subject.images(1))
    require(tuple(alone.shape) == (1, subject.classes), f"the logits of one image have shape {list(alone.shape)}")
    taken = []
    for side in _SIDES:
        try:
            run_network(subject.build((side, side)), subject.images(1, (side, side)))
        except BenchError:
            continue
        taken.append(str(side))
    height, width = subject.size
    sizes = f"takes images of {height} x {width}; square ones of {', '.join(taken) or 'no'} pixels of those tried"
    return f"{sizes}{_too_small(subject)}"


def _too_small(subject: NetworkSubject) -> str:
    """A remark if at least half of the convolutions wider than a pixel give maps of one pixel."""
    if subject.spec.splits:  # built-in networks do not resize
        return ""
    maps: list[torch.Size] = []
    wide = [m for m in subject.network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    hooks = [m.register_forward_hook(lambda _, __, output: maps.append(output.shape[-2:])) for m in wide]
    subject.logits(subject.images(1))
    for hook in hooks:
        hook.remove()
    single = sum(shape == (1, 1) for shape in maps)
    if not single or 2 * single < len(maps):
        return ""
    side = 4 * (getattr(subject.spec, "input_size", None) or max(subject.size))
    return (
        f"; the images are too small: {single} of {len(maps)} convolutions give maps of one pixel: set [network] "
        f"input_size = {side}, which resizes images inside the network"
    )


def check_batches(subject: NetworkSubject) -> None:
    """gives the same logits again, and alike in every batch, in evaluation mode."""
    images = subject.images()
    together = subject.logits(images)
    require(
        torch.equal(together, subject.logits(images)),
        "a second pass gives other logits: switch dropout off in evaluation mode, and keep no state between passes",
    )
    alone = torch.cat([subject.logits(image[None]) for image in images])
    gap = float((together - alone).abs().max())
    require(
        gap < 1e-3 * max(1.0, float(alone.abs().max())),
        f"logits change by {gap:.3g} with the rest of the batch: use statistics of training in evaluation mode",
    )


def check_seeds(subject: NetworkSubject) -> None:
    """has the same weights from the same seed, and others from another."""
    first, again, other = (subject.drawn(seed).state_dict() for seed in (0, 0, 1))
    differing = [name for name in first if not torch.equal(first[name], again[name])]
    if differing:
        raise ContractError(
            f"'{differing[0]}' differs between two networks of one seed: draw from torch's or NumPy's global generators"
        )
    require(
        any(not torch.equal(first[name], other[name]) for name in first),
        "two seeds give the same weights: draw them at random",
    )


def check_state(subject: NetworkSubject) -> None:
    """is stored and loaded as named tensors without a change."""
    state, images = subject.network.state_dict(), subject.images()
    check_storable(state)
    other = subject.drawn(1)
    other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    require(
        torch.equal(run_network(other, images), subject.fixed_logits(images)),
        "a network that is loaded from the state of another has other logits: register all that they depend on as "
        "parameters or buffers",
    )


def check_copies(subject: NetworkSubject) -> None:
    """can be copied, and its copy simplified for deployment, without a change of what it computes."""
    images = subject.images()
    twin = copy.deepcopy(subject.network)
    require(
        torch.equal(run_network(twin, images), subject.fixed_logits(images)),
        "a deep copy of the network has other logits",
    )
    folded = deployable(subject.network, images)
    require(_close(folded, subject, images), "the network with its norms folded has other logits")


def _close(module: nn.Module, subject: NetworkSubject, images: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(module(images), subject.fixed_logits(images), rtol=1e-3, atol=1e-4)


def check_learns(subject: NetworkSubject) -> str:
    """gets finite gradients from a step of training, which changes its weights."""
    subject.logits(subject.images())  # a failure here is reported by another check
    network = subject.drawn().train()
    labels = torch.arange(_BATCH) % subject.classes
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    F.cross_entropy(network(subject.images()), labels).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, gradient in gradients.items():
        require(gradient is None or is_finite(gradient), f"the gradient of '{name}' is not finite")
    optimiser.step()
    changed = [name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])]
    require(bool(changed), "a step of training changes no weight: let parameters require gradients")
    idle = [name for name, gradient in gradients.items() if gradient is None]
    return f"{len(idle)} tensors get no gradient, first '{idle[0]}'" if idle else ""


def check_multiply_adds(subject: NetworkSubject) -> str:
    """has multiply-adds that two counters count alike."""
    subject.logits(subject.images())
    try:
        return f"{measure_cost(subject.network, subject.images(1)).macs:,} multiply-adds an image"
    except CostError as error:
        raise ContractError(
            f"{str(error).partition(' Write the predictor')[0].rstrip('.')}: use plain layers"
        ) from error


def check_export(subject: NetworkSubject) -> None:
    """is exported by torch.export with a free batch, and computes the same."""
    subject.logits(subject.images())
    try:
        program = export_program(subject.network, subject.images(2))
    except RuntimeMissingError as error:
        raise ContractError(f"{error} Let no branch depend on values of tensors, and use plain layers") from error
    images = subject.images()
    require(_close(program.module(), subject, images), "the exported network has other logits")


def check_nodes(subject: NetworkSubject) -> str:
    """has nodes whose features DBN and Direct can read, as `split_at` names them."""
    nodes = feature_nodes(subject)
    require(bool(nodes), "no submodule runs exactly once and returns a tensor: wrap a stage of the network in one")
    node = next(iter(nodes))
    with torch.no_grad():
        features, logits = subject.network.tap(node).eval()(subject.images())
    require(is_finite(features), f"the features at '{node}' are not finite")
    require(torch.equal(logits, subject.fixed_logits(subject.images())), f"reading '{node}' changes the logits")
    listed = [f"{name} {' x '.join(map(str, shape))}" for name, shape in list(nodes.items())[:_NOTED]]
    return f"{'; '.join(listed)}{'; ...' if len(nodes) > _NOTED else ''}"


def feature_nodes(subject: NetworkSubject) -> dict[str, tuple[int, ...]]:
    """Outer nodes that run once and give features, and the shape [C, H, W] of these as a map.

    Raises:
        NotCheckedError: the network does not run.
    """
    network, images = subject.network, subject.images(2)
    if subject.spec.splits:
        blocks: Any = network.blocks
        names = [f"block{index}" for index in range(len(blocks))]
        return {name: tuple(network.tap(name).features(images).shape[1:]) for name in names}
    body: Any = network.body
    found: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for name, module in body.named_modules():
        if name and name.count(".") <= 1:
            kept = found.setdefault(name, [])
            hooks.append(module.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output)))
    try:
        subject.logits(images)
    except BenchError as error:
        raise NotCheckedError("the network does not run") from error
    finally:
        for hook in hooks:
            hook.remove()
    once = {name: outputs[0] for name, outputs in found.items() if len(outputs) == 1}
    tensors = {name: output for name, output in once.items() if isinstance(output, torch.Tensor)}
    return {n: tuple(as_map(x).shape[1:]) for n, x in tensors.items() if 2 <= x.ndim <= 4 and len(x) == len(images)}


CHECKS = (
    check_builds,
    check_logits,
    check_other_sizes,
    check_batches,
    check_seeds,
    check_state,
    check_copies,
    check_learns,
    check_multiply_adds,
    check_export,
    check_nodes,
)


def check_one_network(subject: NetworkSubject) -> Iterator[CheckResult]:
    """Run the checks over a network."""
    yield from run_checks(CHECKS, subject)


def fitting_methods(subject: NetworkSubject) -> tuple[list[str], dict[str, str]]:
    """Methods of classification that work on a network, by name, and why the others do not.

    Methods that read features are tried at the first node that has any.
    """
    node, images = next(iter(feature_nodes(subject)), ""), subject.images(2)
    fitting, others = [], {}
    for name, cls in methods().items():
        if cls.task != "classification":
            continue
        method = parse_method(name)
        if "split_at" in type(method.config).model_fields and method.feature_nodes(subject.spec):
            method = parse_method(name, {"split_at": node})
        try:
            method.check_network(subject.spec)
            if not subject.spec.splits:
                method.check_built(subject.network, images)
        except BenchError as error:
            others[name] = reason(error)
        else:
            fitting.append(name)
    return fitting, others

"""Before anything is trained: does the network of a library or plugin take the images, and does every method fit it?

A built-in network's options tell all of that, and a suite is refused as soon as it is planned.  Any other network is
built once, with the weights that a member would start from, and run on two images of noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.suite.facts import DataFacts
from benchmarks.suite.schema import Suite, naming_method
from dbn_core.errors import BenchError, SpecError, reason
from dbn_core.nets.spec import ModuleSpec

if TYPE_CHECKING:
    import torch

    from dbn_core.nets.network import Network


def check_networks(suite: Suite, facts: DataFacts) -> None:
    """Build and run a network that is not built in, and ask every method of the suite whether it fits.

    Raises:
        SpecError: it does not exist, does not take the images, or lacks what a method needs.
        PluginError: it cannot be built.
        DataError: its weights file is missing, damaged, or of another network.
    """
    if not isinstance(suite.network, ModuleSpec):
        return
    import torch

    from dbn_core.nets.init import initialise_
    from dbn_core.rng import generator

    channels, size = facts.channels, facts.image_size
    network: Any = suite.task.new_network(
        suite.network, channels, size, len(facts.classes), (0.5,) * channels, (0.5,) * channels
    )
    initialise_(network, generator(purpose="check-network"))
    network.eval()
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    run_network(network, images)
    learn(network, images)
    for _, method, _ in suite.entries():
        with naming_method(method), torch.no_grad():
            method.check_built(network, images)


def run_network(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Logits [B, K] of a network that somebody else wrote.

    Raises:
        SpecError: it fails on the images, or returns something else.
    """
    import torch

    with _told(network, images, "fails on"), torch.no_grad():
        logits = network(images)
    if len(logits) != len(images):
        raise SpecError(
            f"The network '{network.spec.label}' returns {len(logits)} rows of logits for {len(images)} images: "
            "return one for each."
        )
    return logits


def learn(network: Network, images: torch.Tensor) -> None:
    """Gradients of a step of training, as of any network.

    Raises:
        SpecError: it cannot be trained on the images.
    """
    import torch
    from torch.nn import functional as F

    with _told(network, images, "cannot be trained on"):
        logits = network.train()(images)
        F.cross_entropy(logits, torch.zeros(len(images), dtype=torch.int64)).backward()
    network.eval()


@contextmanager
def _told(network: Network, images: torch.Tensor, what: str) -> Iterator[None]:
    """Turn any exception of a network into a sentence."""
    try:
        yield
    except (BenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        shape = " x ".join(str(length) for length in images.shape[1:])
        raise SpecError(
            f"The network '{network.spec.label}' {what} images of {shape} ({type(error).__name__}: "
            f"{reason(error)}): set input_size, or other options of [network]."
        ) from error

"""Before anything is trained: does the network of a library or plugin take the images, and does every method fit it?

A built-in network's options tell all of that, and a suite is refused as soon as it is planned.  Any other network is
built once, with the weights that its library draws, and run on two images of noise.
"""

from __future__ import annotations

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
    """
    if not isinstance(suite.network, ModuleSpec):
        return
    import torch

    channels, size = facts.channels, facts.image_size
    network: Any = suite.task.new_network(
        suite.network, channels, size, len(facts.classes), (0.5,) * channels, (0.5,) * channels
    ).eval()
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    run(network, images)
    for _, method, _ in suite.entries():
        with naming_method(method), torch.no_grad():
            method.check_built(network, images)


def run(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Logits [B, K] of a network that somebody else wrote.

    Raises:
        SpecError: it fails on the images.
    """
    import torch

    try:
        with torch.no_grad():
            return network(images)
    except (BenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        shape = " x ".join(str(length) for length in images.shape[1:])
        raise SpecError(
            f"The network '{network.spec.label}' fails on images of {shape} ({type(error).__name__}: "
            f"{reason(error)}): set input_size, or other options of [network]."
        ) from error

"""Generation: predictions are samples and errors of a score; the reference is the mean of M score networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dbn_core.errors import DataError, PluginError, SpecError, TrainingDivergedError
from dbn_core.generative.diffusion.spec import ScoreSpec
from dbn_core.tasks.base import SampleFigure, Score, Scores, Task, checked_arrays, register_task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.data.dataset import Dataset
    from dbn_core.generative.diffusion.members import Member
    from dbn_core.tasks.base import Array
    from dbn_core.train.recipe import Recipe

_STORED = {"points": 1500, "images": 48, "paths": 40}  # samples that the report draws
_ENERGY = 2048  # samples and test examples of the energy distance, whose cost is the product of their numbers
_BATCH = 500  # samples that are drawn at once
_VALUES = 2**19  # values of test examples in one batch: all of a small split, 170 images of 32 x 32 pixels


@register_task("generation")
class Generation(Task):
    """Samples of a data set, and how well a score is predicted (arXiv 2601.11444).

    Attributes:
        prediction: what networks predict; distillation of steps needs ``x`` or ``v``.
        samples: number of samples of each method and repetition.
        draws: of time and noise for each test example, in errors of scores.
        likelihood_steps: of the probability-flow ODE; 0: no likelihood.
        probes: random signs with which the divergence in likelihoods is estimated, each a backward pass, four times a
            step; 0: it is exact, at a backward pass for each dimension of the data.
        likelihood_examples: test examples, drawn at random, whose likelihood is computed; 0: all.
        extractors: number of classifiers whose features compare images; 0 for other data.
    """

    version: ClassVar[int] = 2  # diversity; times and noise are the same for rules that draw members

    prediction: Literal["noise", "x", "v"] = "v"
    samples: int = Field(1000, ge=2, le=1_000_000)
    draws: int = Field(4, ge=1, le=1000)
    likelihood_steps: int = Field(0, ge=0, le=10_000)
    probes: int = Field(0, ge=0, le=1000)
    likelihood_examples: int = Field(0, ge=0)
    extractors: int = Field(0, ge=0, le=20)

    scores: ClassVar[Mapping[str, Score]] = {
        "dsm": Score(
            "DSM loss",
            meaning="denoising score-matching loss on test examples, per coordinate: mean squared error of the noise. "
            "Most of it is noise that no network can predict.",
        ),
        "diversity": Score(
            "diversity",
            None,
            meaning="mean squared distance of the members' sigma times score from their mean, per coordinate: what the "
            "DSM loss of the mean of scores is below the mean DSM loss of the members, exactly.",
        ),
        "score_error": Score(
            "score error", meaning="squared distance of sigma times the score from the true one, per coordinate."
        ),
        "nll": Score(
            "NLL",
            meaning="negative log-likelihood of test examples by the probability-flow ODE, nats per coordinate. Images "
            "are dequantised: uniform noise as wide as a grey level is added, and the number bounds the negative "
            "log-probability of the levels; divided by ln 2 it is in bits per dimension.",
        ),
        "energy": Score(
            "energy distance",
            meaning="between samples and test examples, at most 2,048 of each: zero for equal distributions, up to the "
            "size of both sets.",
        ),
        "fd": Score(
            "classifier-FD",
            meaning="Fréchet distance of features of small classifiers that this suite trained (mean over several). "
            "It depends on them and on the number of samples; it is not comparable with an FID.",
        ),
        "kd": Score("classifier-KD", meaning="unbiased kernel distance of the same features."),
        "modes": Score("mode error", meaning="total variation between the modes' shares in samples and in the truth."),
        "nfe": Score("NFE", None, meaning="network evaluations for one sample, all members counted."),
    }
    headline: ClassVar[str] = "energy"
    tested_scores: ClassVar[tuple[str, ...]] = ("energy", "fd", "dsm", "score_error", "nll", "modes")
    plotted_scores: ClassVar[tuple[str, ...]] = ("energy", "fd", "modes", "dsm", "score_error", "nll")
    axis: ClassVar[tuple[str, str]] = ("nfe_mean", "network evaluations for one sample")
    sample_figures: ClassVar[Mapping[str, SampleFigure]] = {
        "samples": SampleFigure("points", "Samples", "Of the first repetition, next to test examples."),
        "images": SampleFigure(
            "images", "Samples", "Of the first repetition, from the same noise, next to test examples."
        ),
        "paths": SampleFigure(
            "paths",
            "Trajectories",
            "From the same noise to samples (orange), of the first repetition; a line bends at each evaluation of a "
            "network.",
        ),
    }
    reference: ClassVar[str] = "score-ensemble"
    reference_label: ClassVar[str] = "SE"
    draws_predictions: ClassVar[bool] = True
    networks: ClassVar[Any] = ScoreSpec

    def new_network(
        self, spec: Any, channels: int, image_size: tuple[int, int], classes: int, mean: Sequence[float],
        std: Sequence[float],
    ) -> Member:  # fmt: skip
        """A score model of standardised data."""
        from dbn_core.generative.diffusion.members import Member
        from dbn_core.generative.diffusion.networks import ScoreMLP, ScoreUNet
        from dbn_core.generative.diffusion.schedules import VP

        network: nn.Module
        if spec.name == "mlp":
            pixels = image_size[0] * image_size[1]
            network = ScoreMLP(channels * pixels, spec.width, spec.depth, spec.dropout, spec.output_init)
        else:
            if any(side % 2 ** (spec.resolutions - 1) for side in image_size):
                raise SpecError(
                    f"A U-Net of {spec.resolutions} resolutions halves images {spec.resolutions - 1} times, which does "
                    f"not fit {image_size[0]} x {image_size[1]} pixels: set [network] resolutions lower."
                )
            network = ScoreUNet(channels, spec.width, spec.dropout, spec.resolutions, spec.output_init)
        return Member(network, VP(), self.prediction, mean, std)

    def member_step(self, network: Any, recipe: Recipe, generator: torch.Generator) -> Callable[[Batch], torch.Tensor]:
        """Denoising score matching."""
        from dbn_core.generative.diffusion.loss import training_loss

        def step(batch: Batch) -> torch.Tensor:
            return training_loss(network, network.schedule, network.encode(batch.images), generator)

        return step

    def predict(
        self, predictor: Any, data: Dataset, device: torch.device, generator: torch.Generator, name: str
    ) -> dict[str, torch.Tensor]:
        """Samples and test examples [N, C, H, W], errors of the score [N], and distances of features."""
        import torch

        from dbn_core.data.augment import to_float
        from dbn_core.rng import seeded

        start = torch.randn(self.samples, data.channels, *data.image_size, generator=generator)
        with seeded(device, purpose="samples", seed=generator.initial_seed()):  # the same for every method
            samples = torch.cat([predictor(part.to(device)).cpu() for part in start.split(_BATCH)])
        if samples.shape != start.shape:
            raise PluginError(
                f"Method '{name}': the predictor returned samples of shape {list(samples.shape)}: return "
                f"{list(start.shape)}, as its noise."
            )
        if not torch.isfinite(samples).all():
            raise TrainingDivergedError(
                f"Method '{name}': its samples are not finite: check its training losses, or lower its learning rate."
            )
        found = {"nfe": torch.tensor([float(getattr(predictor, "evaluations", 0))])}
        if hasattr(predictor, "field") and _comparable(predictor.first, data, device):
            found |= self._pointwise(predictor, to_float(data.test.images).to(device), data, generator)
        if hasattr(predictor, "trajectories") and data.image_size == (1, 1):
            with seeded(device, purpose="paths", seed=generator.initial_seed()):
                found["paths"] = predictor.trajectories(start[: _STORED["paths"]].to(device)).cpu().contiguous()
        return {key: value.contiguous() for key, value in (found | self._with_test(samples, data)).items()}

    def accept(self, arrays: Mapping[str, Array], data: Dataset) -> dict[str, torch.Tensor]:
        """Samples [N, C, H, W] with N of the suite, since distances depend on N, and optionally ``nfe``.

        They are in the units of the data: images as uint8, or as floats in [0, 1].  ``nfe`` is the number of network
        evaluations for one sample.
        """
        import torch

        shape = (self.samples, data.channels, *data.image_size)
        given = checked_arrays(arrays, {"samples": shape, "nfe": ()}, optional=("nfe",))
        samples = torch.from_numpy(given["samples"].astype("float32"))
        if _are_images(data):
            scale = 1 if given["samples"].dtype.kind == "f" else 255
            if samples.min() < 0 or samples.max() > scale:
                raise DataError(
                    f"The array 'samples' has values from {samples.min():.4g} to {samples.max():.4g}: save images as "
                    "uint8, or as floats in [0, 1]."
                )
            samples /= scale
        found = self._with_test(samples, data)
        if "nfe" in given:
            if given["nfe"] < 0:
                raise DataError(f"The number 'nfe' is {given['nfe']:g}: give the network evaluations for one sample.")
            found["nfe"] = torch.tensor([float(given["nfe"])])
        return found

    def _with_test(self, samples: torch.Tensor, data: Dataset) -> dict[str, torch.Tensor]:
        """Samples (images in [0, 1]) and test examples as they are stored, and scores that need more of the data."""
        import torch

        if _are_images(data):
            samples = samples.clamp(0, 1).mul(255).round().to(torch.uint8)
        found = {"samples": samples, "test": data.test.images}
        if self.extractors and _are_images(data):
            found |= _distances(data, samples, self.extractors)
        if data.truth is not None:
            near = torch.cdist(samples.flatten(1).double(), data.truth.means).argmin(1)
            shares = torch.bincount(near, minlength=len(data.truth.weights)) / len(near)
            found["modes"] = (shares - data.truth.weights).abs().sum()[None] / 2
        return found

    def _pointwise(
        self, predictor: Any, x: torch.Tensor, data: Dataset, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Errors of the score at noised test examples [N, C, H, W], and their likelihood, where the rule has them."""
        import torch

        from dbn_core.generative.diffusion.pointwise import dequantised, nats_per_coordinate, score_errors
        from dbn_core.rng import generator as named

        rule, seed = predictor.rule, generator.initial_seed()
        if rule.pools == "ends":
            return {}
        truth = None if data.truth is None else data.truth.score(predictor.first.schedule)
        size = max(1, _VALUES // x[0].numel())
        found = score_errors(predictor, x, truth, self.draws, size, generator, named(purpose="rule", seed=seed))
        if self.likelihood_steps and rule.draws != "step":
            draws, level = named(purpose="likelihood", seed=seed), None
            if self.likelihood_examples:
                x = x[torch.randperm(len(x), generator=draws)[: self.likelihood_examples].to(x.device)]
            if _are_images(data):
                x, level = dequantised(x, len(data.train.images.unique()), draws)
            found["nll"] = nats_per_coordinate(predictor, x, self.likelihood_steps, self.probes, size, draws, level)
        return found

    def score(self, arrays: Mapping[str, Array], terms: int | None = None) -> Scores:
        """Errors as stored; the energy distance of samples and test examples."""
        from dbn_core.generative.metrics.samples import energy_distance

        samples, test = arrays["samples"], arrays["test"]
        scale = 255.0 if samples.dtype.kind == "u" else 1.0
        flat = [array[:_ENERGY].reshape(min(len(array), _ENERGY), -1) / scale for array in (samples, test)]
        split = {name: float(arrays[name].mean()) for name in ("fd", "kd", "modes", "nfe") if name in arrays}
        split["energy"] = energy_distance(*flat)
        names = [name for name in ("dsm", "diversity", "score_error", "nll") if name in arrays]
        examples = {name: arrays[name].astype(float) for name in names}
        if len(examples.get("nll", test)) < len(test):  # of some test examples
            split["nll"] = float(examples.pop("nll").mean())
        drawn = {}
        if samples.shape[1:] == (2, 1, 1):
            count = _STORED["points"]
            drawn = {"samples": flat[0][:count], "data:samples": flat[1][:count]}
            if "paths" in arrays:
                drawn["paths"] = arrays["paths"][..., 0, 0]
        elif samples.shape[1] in (1, 3):
            pair = [array[: _STORED["images"]].transpose(0, 2, 3, 1) / scale for array in (samples, test)]
            pair = [array[..., 0] if samples.shape[1] == 1 else array for array in pair]
            drawn = {"images": pair[0], "data:images": pair[1]}
        return Scores(
            ids=arrays.get("test_ids"),
            examples=examples,
            split=split,
            samples={name: array.astype("float32", order="C") for name, array in drawn.items()},
        )

    def trial(self) -> tuple[ScoreSpec, Dataset]:
        """Few points and a narrow perceptron."""
        from dbn_core.generative.points import Mixture2dSource

        return ScoreSpec(width=8, depth=1), Mixture2dSource(train_count=48, test_count=24).load()


def _comparable(member: Member, data: Dataset, device: torch.device) -> bool:
    """Whether errors of its score are of noise as that of the suite's networks: the same units and schedule."""
    import torch

    from dbn_core.generative.diffusion.schedules import VP

    mean, std = (torch.tensor(tuple(values), device=device).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    ones = torch.ones(1, data.channels, 1, 1, device=device)
    same = torch.allclose(member.decode(ones), mean + std) and torch.allclose(member.decode(-ones), mean - std)
    return same and member.schedule == VP()


def _are_images(data: Dataset) -> bool:
    """Whether examples are images, not points."""
    return not data.test.images.is_floating_point()


def _distances(data: Dataset, samples: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
    """Fréchet and kernel distance of the features of samples and test images, one for each extractor."""
    import torch

    from dbn_core.data.augment import to_float
    from dbn_core.generative.metrics.extractor import extractors
    from dbn_core.generative.metrics.samples import features, frechet_distance, kernel_distance

    found: dict[str, list[float]] = {"fd": [], "kd": []}
    for extractor in extractors(data, count):
        pair = [features(extractor, to_float(images)) for images in (samples, data.test.images)]
        found["fd"].append(frechet_distance(*pair))
        found["kd"].append(kernel_distance(*pair))
    return {name: torch.tensor(values) for name, values in found.items()}

"""A plugin: diffusion models ``(x, sigma) -> denoised`` of others as a method of generative suites.

Copy it, and change ``build``, ``WEIGHTS`` and the units in ``predictor``:

    dbn-bench run mixture2d --plugin denoiser_method.py --add 'theirs[rule=moe]@2'
"""

import hashlib
import os
from pathlib import Path

from dbn_core import Config, Method, Part, TrainingCost, register
from dbn_core.generative.aggregate import RuleSpec

CODE = Path(__file__).with_name("mixture_denoiser.py")
WEIGHTS = Path(os.environ.get("THEIR_WEIGHTS", "weights"))  # a folder with 0.pt, 1.pt and so on


def build(weights=None):
    """The module, with the weights of a file if there is one."""
    from dbn_core.nets.modules import module_from_file

    return module_from_file(f"{CODE}:MixtureDenoiser", weights, count=4, shape=(2, 1, 1), std=0.15)


@register("theirs")
class Theirs(Method):
    """M diffusion models that were trained elsewhere, under a rule."""

    task = "generation"
    reference = "Karras et al., 2022, arXiv 2206.00364"

    class Config(Config):
        """Options, such as theirs[steps=40]."""

        steps: int = 18
        rule: RuleSpec = "arithmetic"

    def parts(self, size):
        """One for each model; a change of its files makes it another one."""
        files = [[CODE, WEIGHTS / f"{m}.pt"] for m in range(size)]
        keys = [[hashlib.sha256(file.read_bytes()).hexdigest() for file in pair if file.exists()] for pair in files]
        return [Part(f"model-{m}", settings={"sha256": key}) for m, key in enumerate(keys)]

    def training_cost(self, part, recipe, student_epochs):
        """Nothing is trained."""
        return TrainingCost(epochs=0, batch_size=1)

    def fit(self, part, context):
        """Read the weights; they are stored with the suite's results."""
        return build(WEIGHTS / f"{part.name.removeprefix('model-')}.pt")

    def predictor(self, size, context):
        """Noise to samples, in the units of the data."""
        from dbn_core.generative.diffusion.denoisers import score_of
        from dbn_core.generative.diffusion.members import SamplingPredictor

        models = [context.load(build(), part.name) for part in self.parts(size)]
        members = [score_of(model, mean=(0.0,), std=(1.0,)) for model in models]
        return SamplingPredictor(members, self.config.steps, "heun", self.config.rule)

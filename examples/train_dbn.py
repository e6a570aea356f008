"""A Diffusion Bridge Network and a distilled student on handwritten digits, with ``dbn_core`` alone.

Trains three small networks (a deep ensemble, DE-3), distils them into one student (ED), and trains a bridge (DBN) that
carries the logits of the first member to those of the ensemble.  Prints accuracy and NLL of each on the test split.
Read it next to the paper: Kim, Yoon and Lee, 2024, arXiv 2404.15814, whose equations it numbers.

Shapes: images [B, 1, 8, 8], logits [B, K] of K = 10 classes, logits of M members [M, B, K].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dbn_core import Classifier, NetworkSpec, Recipe
from dbn_core.bridge.denoiser import Denoiser, bridge_loss, draw_steps
from dbn_core.bridge.distill import step_distillation_loss
from dbn_core.bridge.process import mean_temperature, random_temperature, sample_bridge, target_logits
from dbn_core.bridge.sampler import sample
from dbn_core.bridge.schedule import step_variances
from dbn_core.data.batch import Batch
from dbn_core.data.digits import DigitsSource
from dbn_core.distillation import ed_loss
from dbn_core.methods.evaluation import evaluate_split
from dbn_core.nets.init import initialise_
from dbn_core.nets.score import ScoreNetwork
from dbn_core.rng import generator
from dbn_core.train.loop import train

STEPS, BETA = 5, 1e-4  # T: steps of the bridge before it is distilled to one; its constant noise rate
TEMPERATURE = (2.0, 0.4)  # lowest source temperature and its spread
FEATURES = "block2"  # the bridge is conditioned on the output of this block of the first member
CPU = torch.device("cpu")
# 120 images for training (few enough for networks to disagree), 200 for validation, the others for test.
DATA = DigitsSource(test_fraction=0.822, validation_fraction=0.625).load()
MEMBER_RECIPE = Recipe(epochs=40, batch_size=32, nesterov=True, weight_decay=0.0, warmup_epochs=3, crop_pad=0)
STUDENT_RECIPE = MEMBER_RECIPE.replace(epochs=60, mixup=0.4)
BRIDGE_RECIPE = STUDENT_RECIPE.replace(optimizer="adamw", lr=1e-2, warmup_epochs=0)
DISTILLATION_RECIPE = BRIDGE_RECIPE.replace(epochs=10, lr=1e-3)


def new_network(name: str) -> Classifier:
    """A ResNet-8 with random weights; every random choice of this script has its own named generator."""
    network = Classifier(NetworkSpec(name="resnet8", width=1.0), DATA.num_classes, DATA.channels, DATA.mean, DATA.std)
    initialise_(network, generator(initialise=name))
    return network


def fit(name: str, module: nn.Module, loss: Callable[[Batch], Tensor], recipe: Recipe) -> None:
    """Train in place: ``loss`` maps a batch to a scalar."""
    train(module, loss, DATA.train, recipe, flip=False, generator=generator(train=name), device=CPU)


def train_member(name: str) -> Classifier:
    """One member of the deep ensemble: cross-entropy on the labels, from weights of its own."""
    member = new_network(name)
    cross_entropy = nn.CrossEntropyLoss()
    fit(name, member, lambda batch: cross_entropy(member(batch.images), batch.labels), MEMBER_RECIPE)
    return member.requires_grad_(False)


def train_student(members: Sequence[Classifier]) -> Classifier:
    """Ensemble distillation (Hinton et al., 2015): match the members' mean softened probabilities on mixed images."""
    student = new_network("student")

    def loss(batch: Batch) -> Tensor:
        return ed_loss(student(batch.images), torch.stack([member(batch.images) for member in members]), tau=1.0)

    fit("student", student, loss, STUDENT_RECIPE)
    return student


def new_denoiser(steps: int) -> Denoiser:
    """A score network eps(h, Z, tau) with the schedule that turns its output into an estimate of Z_0."""
    network = ScoreNetwork(feature_channels=32, classes=DATA.num_classes, architecture="mini")
    initialise_(network, generator(initialise="bridge"))
    return Denoiser(network, step_variances(steps, BETA, BETA))


class Bridge:
    """A bridge from the logits of the first member, the source, to those of the ensemble of all members."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        self.members, self.draws = members, generator(bridge="draws")
        self.features, self.head = members[0].split(FEATURES)

    def ends(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features h(x), the ensemble's logits Z_0 (equation 1), and the logits of the source."""
        h = self.features(images)
        logits = torch.stack([self.head(h), *(member(images) for member in self.members[1:])])
        return h, target_logits(logits), logits[0]

    def soften(self, source: Tensor) -> Tensor:
        """Z_1: the source's logits over a random temperature for each example (equation 2)."""
        return source / random_temperature(len(source), *TEMPERATURE, self.draws)

    def train(self) -> Denoiser:
        """Draw a step n and a state Z_n between both ends (equation 3), and learn the way to Z_0 (equation 4)."""
        denoiser = new_denoiser(STEPS)

        def loss(batch: Batch) -> Tensor:
            h, z_0, source = self.ends(batch.images)
            n = draw_steps(len(batch), STEPS, include_last=True, generator=self.draws)
            z_n = sample_bridge(z_0, self.soften(source), n, denoiser.variances, self.draws)
            return bridge_loss(denoiser, h, z_n, n, z_0)

        fit("bridge", denoiser, loss, BRIDGE_RECIPE)
        return denoiser

    def distil(self, teacher: Denoiser) -> Denoiser:
        """One step that learns from the teacher's sample of T steps and from the true ensemble (equation 6)."""
        student = new_denoiser(1)
        student.load_state_dict(teacher.state_dict())

        def loss(batch: Batch) -> Tensor:
            h, z_0, source = self.ends(batch.images)
            with torch.no_grad():
                z_teacher = sample(teacher, h, source / mean_temperature(*TEMPERATURE))
            return step_distillation_loss(student, h, self.soften(source), z_teacher, z_0)

        fit("one-step bridge", student, loss, DISTILLATION_RECIPE)
        return student

    def predict(self, denoiser: Denoiser, images: Tensor) -> Tensor:
        """One pass of the source, then T small steps of the bridge (equation 5); no other member is needed."""
        h = self.features(images)
        return sample(denoiser, h, self.head(h) / mean_temperature(*TEMPERATURE))


def main() -> None:
    """Train everything and print a table."""
    bridge = Bridge(members := [train_member(f"member {number}") for number in (1, 2, 3)])
    one_step = bridge.distil(five_steps := bridge.train())
    predictors: dict[str, Callable[[Tensor], Tensor]] = {
        **{f"member {number}": member for number, member in enumerate(members, 1)},
        "DE-3": lambda images: target_logits(torch.stack([member(images) for member in members])),
        "ED, 3 teachers": train_student(members),
        "DBN, 5 steps": lambda images: bridge.predict(five_steps, images),
        "DBN, 1 step": lambda images: bridge.predict(one_step, images),
    }
    print(f"{len(DATA.test)} test images  ACC %     NLL")
    for name, predictor in predictors.items():
        accuracy, nll = evaluate_split(predictor, DATA.test, CPU)
        print(f"{name:16} {100 * accuracy:6.1f} {nll:7.3f}")


if __name__ == "__main__":
    main()

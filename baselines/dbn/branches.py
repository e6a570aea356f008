"""B-DENSE for DBN: students learn the states of their teacher's trajectory, not only its end (arXiv 2602.15971).

The paper distils diffusion models of images; this is our transfer of it to bridges, with

    (7)  loss = sum_{k<K} w_k d(Z^_k, X_k) + w_K [alpha d(Z^_K, X_K) + (1 - alpha) d(Z^_K, Z_0)],
         Z^_k = Z_1 - A_k scale o_k

instead of (6): o_1 ... o_K are the outputs of K copies of the student's last layer, X_1 ... X_K = Z_C states of the
teacher's trajectory, A_k the fraction of the bridge's mean up to X_k, and only o_K is kept.  The kept branch learns
from the true ensemble with the share 1 - alpha, as the student of (6) does.  See
``dbn_core.bridge.branches``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from baselines.dbn.training import BridgeTraining, Ends, distillation_recipe
from dbn_core.bridge.branches import (
    BranchedNetwork,
    branch_fractions,
    branch_loss,
    branch_states,
    branch_steps,
    branched,
    curvature,
    endpoints,
    exported,
    growing_weights,
)
from dbn_core.bridge.denoiser import Denoiser, draw_steps
from dbn_core.bridge.process import target_logits
from dbn_core.bridge.sampler import trajectory
from dbn_core.data.batch import Batch
from dbn_core.errors import SpecError
from dbn_core.methods.evaluation import predict_split


class BranchTraining:
    """Distils a bridge by branches, in one round or, where it is progressive, in several.

    Args:
        training: of the bridge: options, ends of a batch, and the generator.
        make: returns a new denoiser with the given number of steps.
    """

    def __init__(self, training: BridgeTraining, make: Callable[[int], Denoiser]) -> None:
        self.training, self.make, self.config = training, make, training.config

    def distil(self, teacher: Denoiser) -> Denoiser:
        """The student of the last round; each round's student teaches the next by its last branch alone.

        Raises:
            SpecError: fewer epochs of distillation than rounds.
        """
        rounds, recipe = self.config.branch_rounds(), distillation_recipe(self.config, self.training.context)
        if recipe.epochs < len(rounds):
            raise SpecError(
                f"dbn: {recipe.epochs} epoch(s) of distillation are too few for {len(rounds)} rounds: "
                "raise distill_share or the epochs."
            )
        for index, (_, steps, count) in enumerate(rounds):
            student = self.make(steps)
            student.load_state_dict(teacher.state_dict())
            student = branched(student, count)
            share = recipe.epochs // len(rounds) + (index < recipe.epochs % len(rounds))
            prefix = f"round_{index + 1}_" if len(rounds) > 1 else ""
            self._round(student, teacher, recipe.replace(epochs=share), f"{prefix}train")
            self._record(student, teacher, prefix)
            teacher = exported(student)
        return teacher

    def _round(self, student: Denoiser, teacher: Denoiser, recipe: Any, purpose: str) -> None:
        config, training, network = self.config, self.training, student.network
        assert isinstance(network, BranchedNetwork)
        weights = self._weights(network.count)
        distance = config.branch_distance or ("kl" if config.loss == "kl" else "l2")

        def step(batch: Batch) -> torch.Tensor:
            ends = training.ends(batch)
            z, n = self._where(student, ends)
            targets, fractions = self._targets(teacher, student, ends, z, n)
            outputs = network.branches(ends.features, z, (n / student.steps).to(z))
            scale = student.scale(n, z)
            alpha = config.distill_alpha
            return branch_loss(outputs, scale, z, targets, ends.z_0, fractions, weights, alpha, distance)

        training.train(student, step, recipe, purpose)

    def _where(self, student: Denoiser, ends: Ends) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B, C] and steps n [B] of the student's own trajectory, n drawn for each example."""
        count = len(ends.z_1)
        if student.steps == 1:
            return ends.z_1, torch.ones(count, dtype=torch.long)
        student.eval()  # as in predictions, and no batch statistics of these passes
        with torch.no_grad():
            states = torch.stack(trajectory(student, ends.features, ends.z_1))
        student.train()
        n = draw_steps(count, student.steps, True, self.training.generator)
        return states[student.steps - n, torch.arange(count)], n

    def _targets(
        self, teacher: Denoiser, student: Denoiser, ends: Ends, z: torch.Tensor, n: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """X_k [B, K, C] and A_k [B, K] at the student's steps n."""
        network = student.network
        assert isinstance(network, BranchedNetwork)
        if self.config.branch_targets == "members":
            return self._partial_ensembles(ends, network.count), torch.ones(len(n), network.count)
        with torch.no_grad():
            start = (
                ends.z_1 if self.config.prior == "gaussian" else self.training.start_at_mean_temperature(ends.source)
            )
            noise, generator = self.config.sampler_noise, self.training.generator
            states = torch.stack(trajectory(teacher, ends.features, start, noise, generator))
        indices = branch_steps(teacher.steps, student.steps, network.count)[n]
        targets = states[teacher.steps - indices, torch.arange(len(n))[:, None]]
        fractions = branch_fractions(teacher.variances, student.steps, network.count)[n]
        if self.config.branch_compare == "endpoints":
            return endpoints(z, targets, fractions), torch.ones_like(fractions)
        return targets, fractions

    def _partial_ensembles(self, ends: Ends, count: int) -> torch.Tensor:
        """Z_0 of the first 2, 3, ... members, the last one of all members, [B, K, C]; no teacher is run."""
        weights = self.training.weights
        targets = []
        for members in range(2, count + 1):
            some = None if weights is None else weights[:members] / weights[:members].sum()
            targets.append(target_logits(ends.member_logits[:members], some))
        return torch.stack([*targets, ends.z_0], 1)

    def _weights(self, count: int) -> torch.Tensor:
        given = self.config.branch_weight_list
        return growing_weights(count, self.config.branch_growth) if given is None else torch.tensor(given)

    @torch.no_grad()
    def _record(self, student: Denoiser, teacher: Denoiser, prefix: str) -> None:
        """kappa of the teacher, and for each branch the mean squared error of its states (examples, classes, steps)."""
        training, network = self.training, student.network
        assert isinstance(network, BranchedNetwork)
        states = training.validation_trajectories(teacher)
        numbers = {"kappa": curvature(states, teacher.variances)}
        if self.config.branch_targets == "teacher":
            fractions = branch_fractions(teacher.variances, student.steps, network.count)
            indices = branch_steps(teacher.steps, student.steps, network.count)

            def errors_of(images: torch.Tensor) -> torch.Tensor:
                """States of the branches at n = S ... 1, [S, K, B, C]."""
                features, logits = training.tap(images)
                start = training.start_at_mean_temperature(logits)
                found = []
                for z, n in zip(trajectory(student, features, start), range(student.steps, 0, -1), strict=False):
                    found.append(branch_states(student, features, z, n, fractions[n]).transpose(0, 1))
                return torch.stack(found)

            found = predict_split(errors_of, training.context.data.validation, training.context.device)
            wanted = states[teacher.steps - indices[1:].flip(0)]
            for k, error in enumerate((found - wanted).square().mean((0, 2, 3)).tolist(), 1):
                numbers[f"branch_{k}_mse"] = error
        training.context.record(**{f"{prefix}{name}": value for name, value in numbers.items()})

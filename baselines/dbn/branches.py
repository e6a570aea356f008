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
    exported,
    growing_weights,
)
from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.process import target_logits
from dbn_core.data.batch import Batch
from dbn_core.methods.evaluation import predict_split


def distil_by_branches(training: BridgeTraining, student: Denoiser, teacher: Denoiser) -> Denoiser:
    """Train a one-step student, started from the teacher's weights, by equation (7); its last branch."""
    config, count = training.config, training.config.branch_count
    student.load_state_dict(teacher.state_dict())
    student = branched(student, count)
    network = student.network
    assert isinstance(network, BranchedNetwork)
    given = config.branch_weight_list
    weights = growing_weights(count, config.branch_growth) if given is None else torch.tensor(given)
    on_path = config.branch_targets == "teacher"
    fractions = branch_fractions(teacher.variances, count) if on_path else torch.ones(count)

    def step(batch: Batch) -> torch.Tensor:
        ends = training.ends(batch)
        targets = path_states(training, teacher, ends) if on_path else partial_ensembles(training, ends)
        n = torch.ones(len(batch), dtype=torch.long)
        outputs, scale = network.branches(ends.features, ends.z_1, n.to(ends.z_1)), student.scale(n, ends.z_1)
        return branch_loss(
            outputs, scale, ends.z_1, targets, ends.z_0, fractions, weights, config.distill_alpha, config.loss
        )

    training.train(student, step, distillation_recipe(config, training.context))
    _record(training, student, teacher)
    return exported(student)


def path_states(training: BridgeTraining, teacher: Denoiser, ends: Ends) -> torch.Tensor:
    """X_k: states of the teacher's trajectory, [B, K, C]."""
    states = training.teacher_trajectory(teacher, ends)
    return torch.stack(
        [states[teacher.steps - n] for n in branch_steps(teacher.steps, training.config.branch_count)], 1
    )


def partial_ensembles(training: BridgeTraining, ends: Ends) -> torch.Tensor:
    """Z_0 of the first 2, 3, ... members, the last one of all members, [B, K, C]; no teacher is run."""
    targets = []
    for members in range(2, training.config.branch_count + 1):
        weights = training.weights
        some = None if weights is None else weights[:members] / weights[:members].sum()
        targets.append(target_logits(ends.member_logits[:members], some))
    return torch.stack([*targets, ends.z_0], 1)


@torch.no_grad()
def _record(training: BridgeTraining, student: Denoiser, teacher: Denoiser) -> None:
    """kappa of the teacher, and for each branch the mean squared error of its states (examples, classes)."""
    states = training.validation_trajectories(teacher)
    numbers = {"kappa": curvature(states, teacher.variances)}
    if training.config.branch_targets == "teacher":
        count = training.config.branch_count
        fractions = branch_fractions(teacher.variances, count)

        def of_branches(images: torch.Tensor) -> torch.Tensor:
            """States [K, B, C]."""
            features, logits = training.tap(images)
            start = training.start_at_mean_temperature(logits)
            return branch_states(student, features, start, fractions).transpose(0, 1)

        found = predict_split(of_branches, training.context.data.validation, training.context.device)
        for k, n in enumerate(branch_steps(teacher.steps, count)):
            numbers[f"branch_{k + 1}_mse"] = float((found[k] - states[teacher.steps - n]).square().mean())
    training.context.record(**numbers)

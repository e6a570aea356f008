"""Methods of the generative suites: ensembles of score networks, forests, and distillation of sampling steps."""

from dbn_core import generative as generative
from dbn_core.methods.registry import METHODS

METHODS.add(
    {
        "aggregate": "baselines.generative.score_ensemble:Aggregate",
        "boosted-trees": "baselines.generative.boosting:BoostedTrees",
        "experts": "baselines.generative.score_experts:Experts",
        "forest": "baselines.generative.forest:Forest",
        "forest-rule": "baselines.generative.forest:ForestRule",
        "mc-dropout-score": "baselines.generative.score_dropout:DropoutScores",
        "score-ensemble": "baselines.generative.score_ensemble:ScoreEnsemble",
        "score-networks": "baselines.generative.score_networks:ScoreNetworks",
        "step-distillation": "baselines.generative.step_distillation:StepDistillation",
        "training-data": "baselines.generative.training_data:TrainingData",
    }
)

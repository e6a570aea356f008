"""The methods of the suite, one file each; importing this package adds them to the table of methods.

Files import torch and the core inside their functions, so that listing the methods does not wait for torch.
"""

from baselines import generative as generative
from dbn_core.methods.registry import METHODS

METHODS.add(
    {
        "batch-ensemble": "baselines.members_in_one:BatchEnsemble",
        "bn": "baselines.bridge_network:BridgeNetwork",
        "cycles": "baselines.cycles:Cycles",
        "dbn": "baselines.dbn:DiffusionBridgeNetwork",
        "de": "baselines.deep_ensemble:DeepEnsemble",
        "de-tta": "baselines.test_time_augmentation:EnsembleOnViews",
        "de-logits": "baselines.deep_ensemble:LogitEnsemble",
        "direct": "baselines.direct:DirectRegression",
        "distil": "baselines.method_distillation:MethodDistillation",
        "ed": "baselines.ensemble_distillation:EnsembleDistillation",
        "edfm": "baselines.logit_flow:FlowMatchingDistillation",
        "end2": "baselines.end2:EnsembleDistributionDistillation",
        "ensemble-of-singles": "baselines.ensemble_of_singles:EnsembleOfSingles",
        "gaussian": "baselines.gaussian_distillation:GaussianDistillation",
        "hydra": "baselines.hydra:Hydra",
        "laplace": "baselines.laplace:Laplace",
        "masksembles": "baselines.members_in_one:Masksembles",
        "mc-batchnorm": "baselines.mc_batchnorm:MonteCarloBatchNorm",
        "mc-dropout": "baselines.mc_dropout:MonteCarloDropout",
        "mimo": "baselines.members_in_one:MultiInputMultiOutput",
        "null": "baselines.single_network:Null",
        "packed": "baselines.members_in_one:PackedEnsemble",
        "perturbed": "baselines.perturbed_distillation:PerturbedDistillation",
        "shared": "baselines.shared_ensemble:SharedEnsemble",
        "single": "baselines.single_network:SingleNetwork",
        "student-bridge": "baselines.student_bridge:StudentBridge",
        "swa": "baselines.weight_averaging:StochasticWeightAveraging",
        "swag": "baselines.weight_averaging:StochasticWeightAveragingGaussian",
        "ts": "baselines.temperature_scaling:TemperatureScaling",
        "tta": "baselines.test_time_augmentation:TestTimeAugmentation",
    }
)

"""Samples of diffusion models ``(x, sigma) -> denoised`` of others under a rule, as files, and their KID.

    python examples/mixture_denoiser.py theirs
    python examples/sample_denoisers.py examples/mixture_denoiser.py:MixtureDenoiser theirs/low.pt theirs/high.pt \\
        --shape 1 8 8 --rule moe --out samples --against theirs/real/images
"""

import argparse
from pathlib import Path

import torch

from dbn_core.generative.diffusion.denoisers import schedule_between, score_of
from dbn_core.generative.diffusion.members import SamplingPredictor
from dbn_core.generative.images import image_features, kid, read_images, write_samples
from dbn_core.nets.modules import module_from_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="FILE.py:NAME of the class or function that builds the module")
parser.add_argument("weights", type=Path, nargs="+", help="weights files, one for each member")
parser.add_argument("--shape", type=int, nargs=3, default=(3, 32, 32), help="channels, height, width")
parser.add_argument("--sigma", type=float, nargs=2, default=(0.002, 80.0), help="smallest and largest of its training")
parser.add_argument("--rule", default="arithmetic")
parser.add_argument("--sampler", default="heun")
parser.add_argument("--steps", type=int, default=18)
parser.add_argument("--count", type=int, default=512)
parser.add_argument("--out", type=Path, default=Path("samples"))
parser.add_argument("--against", type=Path, help="folder of real images")
parser.add_argument("--features", nargs=2, help="FILE.py:NAME or torchvision:NAME, and its weights; else pixels")
asked = parser.parse_args()

schedule = schedule_between(*asked.sigma)
members = [score_of(module_from_file(asked.model, weights), schedule) for weights in asked.weights]
sampler = SamplingPredictor(members, asked.steps, asked.sampler, asked.rule)
torch.manual_seed(0)
with torch.no_grad():
    samples = torch.cat([sampler(noise) for noise in torch.randn(asked.count, *asked.shape).split(64)])
write_samples(asked.out, samples)
print(f"{asked.out / 'grid.png'}: {asked.count} samples, {sampler.evaluations} network evaluations each")
if asked.against:
    real, (name, weights) = read_images(asked.against, asked.shape[0]), asked.features or ("pixels", "")
    build = module_from_file if ".py:" in name else image_features
    print(f"KID on {name}: {kid(samples, real, build(name, Path(weights)) if weights else None):.5f}")

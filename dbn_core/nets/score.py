"""The score network of DBN: a MobileNet-V2-like network on an early feature map, conditioned on time and logits.

Two logit branches exist.  ``dead`` is the released code's: three class-agnostic statistics through a small perceptron
whose weights all start at zero, so its only live parameter is the last bias.  ``live`` is ours: all K logits are
embedded, join the time embedding at every stage, and are concatenated to the pooled features before the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dbn_core.errors import SpecError, did_you_mean
from dbn_core.nets.init import initialise_, truncated_normal_
from dbn_core.nets.precision import full_precision


@dataclass(frozen=True)
class ScoreArchitecture:
    """Stages of (expansion, channels, blocks, stride), the width of the last 1x1 convolution, and the stem's stride."""

    stages: tuple[tuple[int, int, int, int], ...]
    head: int
    head_scales: bool = True
    stem_stride: int = 1


ARCHITECTURES = {
    # The three versions behind the published numbers, named as in the released code.
    "v1.1.8": ScoreArchitecture(((1, 32, 1, 1), (3, 48, 2, 2), (3, 64, 3, 2), (3, 96, 2, 1), (3, 128, 2, 1)), 128),
    "v1.1.10": ScoreArchitecture(((1, 64, 1, 1), (4, 96, 2, 2), (4, 128, 3, 2), (4, 192, 4, 1), (4, 256, 3, 2)), 256),
    "v1.1.13": ScoreArchitecture(
        ((6, 64, 3, 2), (6, 96, 3, 2), (6, 160, 3, 1), (6, 320, 3, 2), (6, 640, 1, 1)), 1280, head_scales=False
    ),
    # Ours: for feature maps of 16x16 and networks of 30 million multiply-adds, and for 8x8 images and networks of one.
    "compact": ScoreArchitecture(((3, 48, 1, 1), (3, 96, 1, 2), (3, 128, 1, 1)), 128, stem_stride=2),
    "mini": ScoreArchitecture(((3, 16, 1, 1), (3, 24, 1, 2)), 32, stem_stride=2),
}


_LOGIT_SCALE = 3.0  # as in the released code


def _even(channels: float) -> int:
    return max(2, 2 * round(channels / 2))


class TimeEmbedding(nn.Module):
    """Sinusoids of the *unscaled* time tau in [0, 1] ([cos, sin], frequencies 10000^(-2i/d)), linear, SiLU."""

    frequencies: torch.Tensor

    def __init__(self, dimension: int, out: int) -> None:
        super().__init__()
        half = dimension // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / max(half, 1)), persistent=False)
        self.linear = nn.Linear(2 * half, out)

    def forward(self, tau: torch.Tensor) -> torch.Tensor:
        """[B] to [B, out]."""
        angle = tau[:, None] * self.frequencies
        return nn.functional.silu(self.linear(torch.cat([angle.cos(), angle.sin()], 1)))


class DeadLogitEncoder(nn.Module):
    """Mean, 1/K and standard deviation of the logits through 3-2-2-1 units with ReLU6, all zero at the start.

    Kept for fidelity: every gradient but that of the last bias is exactly zero, for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.ReLU6(), nn.Linear(2, 2), nn.ReLU6(), nn.Linear(2, 1))

    def reset(self, generator: torch.Generator) -> None:
        """All zeros, as released."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """[B, K] to [B, 1]."""
        mean, std = logits.mean(1), logits.std(1, correction=0)
        return self.layers(torch.stack([mean, torch.full_like(mean, 1.0 / logits.shape[1]), std], 1))


class InvertedResidual(nn.Module):
    """MobileNet-V2 block: expand 1x1, depthwise 3x3, project 1x1; identity skip where shapes agree."""

    def __init__(self, expansion: int, in_channels: int, out: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else conv_bn(in_channels, hidden, 1)
        layers += conv_bn(hidden, hidden, 3, stride, groups=hidden)
        layers += [nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out, momentum=0.01)]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and in_channels == out

    def reset(self, generator: torch.Generator) -> None:
        """LeCun normal, the default of the released code's framework."""
        initialise_(self.layers, generator, gain=1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in, H, W] to [B, out, H/stride, W/stride]."""
        return x + self.layers(x) if self.skip else self.layers(x)


class StridedDepthwise(nn.Conv2d):
    """A strided depthwise convolution, in float32: on processors its gradient in bf16 takes 30 to 50 times as long."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, H/stride, W/stride]."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):  # meta has none
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(full_precision(x))


def conv_bn(
    in_channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, momentum: float = 0.01
) -> list[nn.Module]:
    """Convolution without bias, BatchNorm, ReLU6."""
    kind = StridedDepthwise if groups > 1 and stride > 1 else nn.Conv2d
    conv = kind(in_channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out, momentum=momentum), nn.ReLU6(inplace=True)]


class ScoreNetwork(nn.Module):
    """epsilon(h, Z, tau): a feature map, logits and a time to K numbers.

    Args:
        feature_channels: C of the conditioning feature map h [B, C, H, W].
        classes: K.
        architecture: a key of :data:`ARCHITECTURES`.
        width: multiplier of all stage channels.
        sees_state: whether the logits are read, too; the released code's encoder of them gives a constant.

    Raises:
        SpecError: unknown architecture.
    """

    def __init__(
        self,
        feature_channels: int,
        classes: int,
        architecture: str = "v1.1.8",
        width: float = 1.0,
        sees_state: bool = False,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise SpecError(f"Unknown score network '{architecture}'{did_you_mean(architecture, ARCHITECTURES)}.")
        plan = ARCHITECTURES[architecture]
        self.sees_state = sees_state
        base = max(8, 8 * round(feature_channels / 8))
        embedding = base // 2
        self.time = TimeEmbedding(base // 4, embedding)
        self.stem = nn.Sequential(*conv_bn(feature_channels, base, 3, plan.stem_stride, momentum=0.1))
        channels = base
        self.logits: nn.Module
        if not sees_state:
            self.logits, channels = DeadLogitEncoder(), base + 1
        else:
            self.logits = nn.Sequential(
                nn.Linear(classes, 2 * embedding), nn.SiLU(), nn.Linear(2 * embedding, embedding)
            )
        self.stages, self.stage_conditions = nn.ModuleList(), nn.ModuleList()
        for expansion, out, blocks, stride in plan.stages:
            out = _even(out * width)
            self.stage_conditions.append(nn.Linear(embedding, channels))
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(InvertedResidual(expansion, channels, out, 1 if block else stride))
                channels = out
            self.stages.append(stage)
        head = _even(plan.head * width) if plan.head_scales else plan.head
        self.head = nn.Sequential(*conv_bn(channels, head, 1))
        # Logits and their embedding are concatenated to the pooled features, so that they reach the output directly.
        self.out = nn.Linear(head + (embedding + classes if sees_state else 0), classes)

    def reset(self, generator: torch.Generator) -> None:
        """He normal for stem, conditions and output, LeCun normal inside the blocks and the 1x1 head."""
        for module in (self.time, self.logits, self.stem, self.stage_conditions, self.stages, self.out):
            initialise_(module, generator)
        initialise_(self.head, generator, gain=1.0)
        if self.sees_state:  # start from the feature path alone; the logit path grows from zero
            truncated_normal_(self.out.weight, 2.0, generator)
            with torch.no_grad():
                self.out.weight[:, self.head[0].out_channels :].zero_()

    def forward(self, features: torch.Tensor, logits: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """Features [B, C, H, W], logits Z [B, K], tau [B] in [0, 1] to epsilon [B, K]."""
        logits = logits / _LOGIT_SCALE
        condition = self.time(tau)
        h = self.stem(features)
        if not self.sees_state:
            encoded = self.logits(logits)[:, :, None, None].expand(-1, 1, *h.shape[2:])
            h = torch.cat([h, encoded], 1)
        else:
            logits = logits - logits.mean(1, keepdim=True)
            encoded = self.logits(logits)
            condition = condition + encoded
        for stage, project in zip(self.stages, self.stage_conditions, strict=True):
            h = stage(h + project(condition)[:, :, None, None])
        pooled = self.head(h).mean((2, 3))
        seen = torch.cat([pooled, encoded, logits], 1) if self.sees_state else pooled
        return full_precision(self.out(seen))  # bridge arithmetic is float32 under autocast too

"""The Bezier curve between two networks: its ends, its middle, its gradient."""

import torch

from dbn_core.nets import NetworkSpec
from dbn_core.nets.bezier import BezierCurve
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator

RESNET8 = NetworkSpec(name="resnet8", width=1, channels=4)


def classifier(spec, classes, seed=0):
    network = Classifier(spec, classes, 3, (0.5,) * 3, (0.2,) * 3)
    initialise_(network, generator(seed=seed))
    return network.eval()


def bezier_curve():
    start, control, end = (classifier(RESNET8, 4, seed) for seed in (1, 2, 3))
    return start, control, end, BezierCurve(start, control, end)


def test_bezier_curve_runs_from_start_to_end_through_the_weighted_middle():
    start, control, end, curve = bezier_curve()
    with torch.no_grad():
        for parameter in control.parameters():  # a control that differs from the ends in every parameter, FRN's too
            parameter.add_(0.1)
    x = torch.rand(3, 3, 8, 8, generator=generator(seed=6))
    middle = classifier(RESNET8, 4)
    with torch.no_grad():
        torch.testing.assert_close(curve(x, 0.0), start(x))
        torch.testing.assert_close(curve(x, 1.0), end(x))
        for a, c, b, m in zip(*(n.parameters() for n in (start, control, end, middle)), strict=True):
            m.copy_(0.25 * a + 0.5 * c + 0.25 * b)
        torch.testing.assert_close(curve(x), middle(x))
        loaded = classifier(RESNET8, 4)
        loaded.load_state_dict(dict(curve.state_at(0.5)))
        torch.testing.assert_close(loaded(x), middle(x))


def test_bezier_curve_trains_its_control_point_alone():
    start, control, end, curve = bezier_curve()
    x, r = torch.rand(3, 3, 8, 8, generator=generator(seed=6)), 0.3
    curve(x, r).square().sum().backward()
    assert [id(p) for p in curve.parameters()] == [id(p) for p in control.parameters()]
    assert all(p.grad is None for network in (start, end) for p in network.parameters())
    # By the chain rule the control's gradient is 2 r (1 - r) times that of the network at r.
    at_r = classifier(RESNET8, 4)
    at_r.load_state_dict(dict(curve.state_at(r)))
    at_r(x).square().sum().backward()
    for mine, theirs in zip(control.parameters(), at_r.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, 2 * r * (1 - r) * theirs.grad, rtol=1e-3, atol=1e-4)

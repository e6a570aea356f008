"""The examples in the documentation of the diffusion package run and are true."""

import doctest
import importlib
import pkgutil

import pytest

from dbn_core.generative import diffusion

MODULES = [f"dbn_core.generative.diffusion.{module.name}" for module in pkgutil.iter_modules(diffusion.__path__)]
MODULES.remove("dbn_core.generative.diffusion.spec")  # options alone


@pytest.mark.parametrize("name", [*MODULES, "dbn_core.generative.metrics.samples"])
def test_the_example_of_a_module(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted >= 4
    assert found.failed == 0

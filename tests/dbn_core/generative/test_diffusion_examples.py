"""The examples in the documentation of the diffusion package run and are true."""

import doctest
import importlib
import pkgutil

import pytest

from dbn_core import diffusion

MODULES = [f"dbn_core.diffusion.{module.name}" for module in pkgutil.iter_modules(diffusion.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "dbn_core.metrics.generation"])
def test_the_example_of_a_module(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted >= 4
    assert found.failed == 0

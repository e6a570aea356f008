"""The examples in the docstrings of the generative packages run and are true."""

import doctest
import importlib
import pkgutil

import pytest

from dbn_core import generative

MODULES = [module.name for module in pkgutil.walk_packages(generative.__path__, "dbn_core.generative.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = [name for name in MODULES if any(t.examples for t in finder.find(importlib.import_module(name)))]
    assert len(with_examples) >= 13

"""The examples in the docstrings, run in every module of the package, found by import name."""

import doctest
import importlib
import pkgutil

import pytest

import veridical

MODULES = ["veridical", *(found.name for found in pkgutil.walk_packages(veridical.__path__, "veridical."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_right(name):
    module = importlib.import_module(name)
    assert module.__doc__, "a module says what it is for"
    assert doctest.testmod(module).failed == 0


def test_there_are_examples_to_run():
    modules = map(importlib.import_module, MODULES)
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 20

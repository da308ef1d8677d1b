"""Decoders and detectors are values: printable, comparable, hashable, frozen, and documented field by field."""

import dataclasses
import importlib
import re
import sys

import pytest

from veridical.pipelines.method import rules
from veridical.pipelines.registry import DECODERS, DETECTORS

from .. import table

PAPER = re.compile(
    r"arXiv:? ?\d{4}\.\d{4,5}|\b(CVPR|ICCV|ECCV|ICLR|ICML|NeurIPS|ACL|EMNLP|NAACL|EACL|AAAI|PRCV|WACV) 20\d\d"
)
CASES = [(registry, name) for registry in (DECODERS, DETECTORS) for name in registry.own]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[1]}_{case[0].kind}")
def cls(request):
    registry, name = request.param
    return registry.type(name)


def row_of(cls):
    return cls.registry.own[cls.registry.name_of(cls)]


def instances(cls):
    """The default, what the authors released, and what the contract runs."""
    yield cls()
    if cls.released is not None:
        yield cls.official()
    for name in table.ENTRIES:
        if DECODERS.type(name) is cls:
            yield table.neutral(name)
            yield from (table.acting(name, kind) for kind in ("tiny", "embedded", "smollm2"))


def test_the_repr_is_the_object(cls):
    for instance in instances(cls):
        again = eval(repr(instance), {cls.__name__: cls, **vars(table)})
        assert again == instance
        assert type(again) is cls


def test_equal_objects_have_equal_hashes(cls):
    for instance in instances(cls):
        assert hash(instance) == hash(dataclasses.replace(instance))


def test_fields_given_as_lists_hash_too(cls):
    """A list is what a results file or "layers=[1,2]" gives."""
    for field in dataclasses.fields(cls):
        if "Sequence" in str(field.type) or "Window" in str(field.type):
            instance = cls(**{field.name: [1, 2]})
            hash(instance)
            assert instance == eval(repr(instance), {cls.__name__: cls})


def test_objects_are_frozen(cls):
    assert dataclasses.is_dataclass(cls)
    instance = cls()
    for field in [*(field.name for field in dataclasses.fields(cls)), "something_new"]:
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(instance, field, 1)


def test_every_field_has_a_default_and_stands_in_the_docstring(cls):
    for field in dataclasses.fields(cls):
        assert field.default is not dataclasses.MISSING, field.name
        assert re.search(rf"\b{field.name}\b", cls.__doc__), f"{field.name} is not in the docstring of {cls.__name__}"
        assert rules(cls)[field.name].meaning, f"{cls.__name__}.{field.name} has no rule"


def test_the_docstring_opens_with_one_sentence(cls):
    first = cls.__doc__.strip().split("\n\n")[0]
    assert not cls.__doc__.startswith(cls.__name__ + "("), "dataclass wrote it"
    assert len(first) <= 240


def test_the_module_names_the_paper(cls):
    """Where the class says that there is one; plain decoding, baselines and controls have none."""
    row = row_of(cls)
    if row.paper in ("–", "baseline", "control"):
        return
    module = sys.modules[cls.__module__]
    where = f"{module.__doc__}\n{cls.__doc__}"
    assert PAPER.search(where), f"{module.__name__} names neither an arXiv number nor a conference and year"
    number = re.search(r"\d{4}\.\d{4,5}", row.cited)
    assert number is None or number.group() in where


def test_a_table_can_be_made_of_every_class(cls):
    for column in ("cited", "changes", "cost") if cls.registry is DECODERS else ("cited", "reads"):
        assert getattr(row_of(cls), column)


def test_registered_names_are_those_of_their_classes(cls):
    assert cls.registry.type(cls.registry.name_of(cls())) is cls


@pytest.mark.parametrize("registry", [DECODERS, DETECTORS], ids=lambda r: r.kind)
def test_every_public_class_with_edits_or_readings_is_registered(registry):
    registered = {registry.type(name) for name in registry.own}
    modules = {cls.__module__ for cls in registered}
    for module in map(importlib.import_module, modules):
        public = [found for name, found in vars(module).items() if not name.startswith("_")]
        for found in public:
            if isinstance(found, type) and found.__module__ == module.__name__ and dataclasses.is_dataclass(found):
                assert found in registered, f"{found.__name__} has no name"


def flags(cls):
    return [field.name for field in dataclasses.fields(cls) if isinstance(field.default, bool)]


def test_a_flag_that_is_neither_true_nor_false_is_refused(cls):
    """On the command line "skip_last=no" is the text "no", which Python takes for true."""
    for name in flags(cls):
        with pytest.raises(ValueError, match=f"{name}='no' is neither True nor False"):
            cls(**{name: "no"})

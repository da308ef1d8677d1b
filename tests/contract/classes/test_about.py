"""What the catalogue says of a method: paper, what it changes, cost, families, and where paper and code differ."""

import dataclasses
import re
import sys

import pytest

from veridical.pipelines.method import rules
from veridical.pipelines.procedures import Call
from veridical.pipelines.registry import DECODERS, DETECTORS, PROCEDURES

from ...families.support import CANNOT

METHODS = [(registry, name) for registry in (DECODERS, PROCEDURES) for name in registry.own]
NOBODYS = {"flip"}  # a rule that a paper uses and that leaves nothing to differ in


@pytest.fixture(params=METHODS, ids=lambda case: case[1])
def method(request):
    registry, name = request.param
    return name, registry.type(name), registry.own[name]


def test_it_says_what_it_changes_and_what_that_costs(method):
    _, _, row = method
    assert row.cited
    assert row.changes
    assert row.cost


def test_it_says_in_one_or_two_sentences_where_paper_and_code_differ(method):
    name, _, row = method
    if row.paper == "–" or name in NOBODYS:
        assert not row.differs
        return
    assert re.search(r"\b(code|scripts?|sampler|repository)\b", row.differs)
    assert row.differs.endswith(".")
    assert 1 <= len(re.findall(r"\. (?=[A-Z])|\.$", row.differs)) <= 2


def test_what_the_authors_released_can_be_built_or_is_said_to_be_the_same(method):
    """`official()` builds it; where it builds the default, `differs` says that."""
    name, cls, row = method
    if row.paper == "–" or name in NOBODYS:
        assert cls.released is None
        with pytest.raises(ValueError, match=f"{cls.__name__} has no settings of released code"):
            cls.official()
        return
    official = cls.official()
    assert type(official) is cls
    assert (official == cls()) == ("official() is the same" in row.differs)


def test_families_are_named_where_a_decoder_or_procedure_does_not_work_on_all(method):
    """The tests of families run every pair; this is what the catalogue makes of their table."""
    name, _, row = method
    assert bool(row.families) == (name in {one for _, one in CANNOT})


# -- procedures ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PROCEDURES.names)
def test_a_procedure_is_a_value_with_its_paper_and_its_fields_in_the_docstring(name):
    cls = PROCEDURES.type(name)
    for instance in (cls(), cls.official() if cls.released is not None else cls()):
        assert eval(repr(instance), {cls.__name__: cls}) == instance
        assert hash(instance) == hash(dataclasses.replace(instance))
    for field in dataclasses.fields(cls):
        assert field.default is not dataclasses.MISSING
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cls(), field.name, 1)
        assert re.search(rf"\b{field.name}\b", cls.__doc__), field.name
        assert rules(cls)[field.name].meaning, field.name
    row = PROCEDURES.own[name]
    assert row.paper == "–" or row.paper in sys.modules[cls.__module__].__doc__
    assert PROCEDURES.name_of(cls()) == name


def test_no_name_stands_for_two_things():
    assert not set(PROCEDURES.names) & {*DECODERS.names, *DETECTORS.names}


def test_a_procedures_calls_can_be_made_without_detectors():
    call = Call(None, [], ["entropy"], None, {})
    assert call.silent() == Call(None, [], (), None, {})


@pytest.mark.parametrize("registry", [DECODERS, PROCEDURES], ids=lambda registry: registry.kind)
def test_the_catalogue_says_nothing_where_there_is_nothing_to_say(registry, capsys):
    """A rule of nobody's has no paper to differ from; every entry says which families it works on, in one wording."""
    from veridical.cli.render import methods

    methods.methods(registry, ("changes", "cost", "cited"), long=True)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "paper and code:" not in lines
    texts = [line for line in lines if line.startswith("families: ")]
    assert len(texts) == len(registry.names)
    assert all(line == "families: all supported" or line.startswith("families: models with") for line in texts)

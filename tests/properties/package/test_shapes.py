"""Annotated shapes are checked in this very run: a tensor of another shape, or a wrong annotation, is an error."""

import os
import re
import sys
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import veridical
from veridical.pipelines.engine.call import Sequences, softmax
from veridical.pipelines.engine.record import Record, confidence
from veridical.pipelines.engine.rows import came_from

from ... import shapes

pytestmark = pytest.mark.skipif(os.environ.get("VERIDICAL_SHAPES") == "0", reason="shapes are not checked in this run")
SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

def right(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    return logits.amax(1)

def wrong(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    return logits.amax(0)

def plain(count: int) -> int:
    return "not checked: no shape stands here"

def outer(logits: Float[Tensor, "row vocab"]) -> Tensor:
    def inner(logits: Float[Tensor, " vocab"]) -> Tensor:
        return logits
    return inner(logits)

@dataclass
class Kept:
    mask: Float[Tensor, "row token"]
    ids: Float[Tensor, "row token"]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "shaped.py"
    path.write_text(SOURCE)
    found = spec_from_loader("shaped", shapes.Loader("shaped", str(path)))
    built = module_from_spec(found)
    monkeypatch.setitem(sys.modules, "shaped", built)
    found.loader.exec_module(built)
    return vars(built)


def test_a_wrong_annotation_is_an_error(module):
    logits = torch.zeros(2, 5)
    assert module["right"](logits).shape == (2,)
    with pytest.raises(TypeCheckError, match=r"checking the return value of shaped\.wrong"):
        module["wrong"](logits)


def test_the_fields_of_a_dataclass_share_their_dimensions(module):
    module["Kept"](torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(TypeCheckError, match="'ids'"):
        module["Kept"](torch.zeros(2, 3), torch.zeros(2, 4))


def test_only_what_names_a_shape_is_checked_and_nothing_inside_functions(module):
    assert module["plain"](1) == "not checked: no shape stands here"
    module["outer"](torch.zeros(2, 3))


@pytest.mark.parametrize(
    "call",
    [
        lambda: came_from(torch.zeros(2, 3, 4).long(), torch.zeros(2, 3).long(), 2),
        lambda: came_from(torch.zeros(2, 3).long(), torch.zeros(3, 3).long(), 2),
        lambda: softmax(torch.zeros(2, 3).long()),
        lambda: confidence(torch.zeros(2, 3).bool()),
        lambda: Sequences(torch.zeros(2, 3).bool(), torch.zeros(2, 4).bool(), torch.zeros(2).long()),
        lambda: Record(*(torch.zeros(2, n).to(kind) for n, kind in ((3, int), (4, bool))), *[torch.zeros(2, 3)] * 4),
    ],
)
def test_tensors_of_other_shapes_and_kinds_are_refused_by_the_engine(call):
    with pytest.raises(TypeCheckError):
        call()


def test_every_annotated_function_of_the_engine_is_checked():
    """The hook found the modules: what stands in their source with a shape is wrapped."""
    root = Path(veridical.__file__).parent / "pipelines" / "engine"
    shaped = re.compile(r"\b(Float|Int|Bool|Shaped)\[Tensor")
    annotated = {path.stem for path in root.glob("*.py") if shaped.search(path.read_text())}
    assert {"call", "record", "rows", "online_risk", "logits", "choice", "ended_rows", "lookahead"} <= annotated
    for function in (came_from, softmax, confidence, Sequences.align, Sequences.__init__):
        assert hasattr(function, "__wrapped__"), function

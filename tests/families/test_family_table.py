"""What pipelines/model/families.py says of each family, against the tiny models."""

import pytest

import veridical
from veridical.pipelines.attention_maps import maps_of
from veridical.pipelines.model import families

from .models.tiny_families import FAMILIES
from .models.tiny_more import MORE
from .models.tiny_prompts import prompt, rows
from .models.tiny_weights import END, FAKE, GLOBAL, HIDDEN, IMAGE, ROW, START, WINDOW
from .setting import setting

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


WRAPPERS = {name: {START, END} for name in ("gemma3", *QWEN)}
TILES = {"<fake_token_around_image>": FAKE, "<global-img>": GLOBAL, "<row_1_col_1>": ROW, "<row_1_col_2>": ROW + 1}
NAMED = {"internvl": {"<img>": START, "</img>": END}, "smolvlm": TILES, "idefics3": TILES}


class Named:
    """As much of a processor as knows the names of tokens."""

    def __init__(self, names):
        self.tokenizer, self.names, self.pad_token_id = self, names, 0

    def get_added_vocab(self):
        return {"<end_of_utterance>": 15, **self.names}


def test_image_free_prompts_have_no_token_around_an_image(case):
    names = NAMED.get(case.family.name, {})
    lvlm = veridical.LVLM(case.model, Named(names)) if names else case.lvlm
    free, gone = lvlm.image_free(case.inputs), {IMAGE} | WRAPPERS.get(case.family.name, set()) | set(names.values())
    for row, one in enumerate(case.prompts):
        expected = [token for token in one["input_ids"][0].tolist() if token not in gone]
        real = free["attention_mask"][row].bool()
        assert free["input_ids"][row][real].tolist() == expected
        assert bool(real[-1])
        assert not real[: int((~real).sum())].any(), "padding is on the left"


GRIDS = {
    "llava": [[(2, 2)], [(2, 2)]],
    "qwen2_vl": [[(2, 4)], [(2, 2)]],
    "qwen2_5_vl": [[(2, 4)], [(2, 2)]],
    "qwen3_vl": [[(2, 4)], [(2, 2)]],
    "internvl": [[(2, 2)] * 3, [(2, 2)]],
    "smolvlm": [[(2, 2)] * 3, [(2, 2)]],
    "idefics3": [[(2, 2)] * 3, [(2, 2)]],
    "paligemma": [[(2, 2)], [(2, 2)]],
    "gemma3": [[(2, 2)], [(2, 2)]],
}
NO_GRID = {"llava_next": "newline", "llava_onevision": "newline", "instructblip": "query tokens"}


def test_grids_are_those_of_the_images_or_are_refused_with_the_reason(case):
    if case.family.name in NO_GRID:
        with pytest.raises(families.NoGrid, match=NO_GRID[case.family.name]):
            case.lvlm.grid(case.inputs)
        return
    assert case.lvlm.grid(case.inputs) == GRIDS[case.family.name]


def test_a_number_of_positions_that_is_no_whole_image_has_no_grid():
    case = setting("llava")
    with pytest.raises(families.NoGrid, match="no whole number"):
        case.lvlm.grid(rows(case.family, [1, *[IMAGE] * 3, 20]))


def test_every_supported_family_is_tested_here():
    assert set(families.FAMILIES) == {*FAMILIES, *MORE}


def test_templates_name_the_question_once_and_the_image_where_the_processor_wants_it():
    built = {name: row.template for name, row in families.FAMILIES.items() if row.template}
    assert all(template.count("{question}") == 1 for template in built.values())
    assert {name for name, template in built.items() if "{image}" in template} == {"llava", "paligemma"}


def test_prompts_here_are_longer_than_the_window_and_models_are_small():
    assert prompt(FAMILIES["gemma3"], 3, 3)["input_ids"].shape[1] > WINDOW
    assert HIDDEN <= 64


def test_an_overlay_has_the_grid_of_its_image_or_is_refused_with_the_reason(case):
    ids = case.generate(max_new_tokens=2, min_new_tokens=2).ids
    found = maps_of(case.lvlm, case.inputs, ids)
    if case.family.name in NO_GRID:
        with pytest.raises(families.NoGrid, match=NO_GRID[case.family.name]):
            found[0].overlay(0)
        return
    for one, grids in zip(found, GRIDS[case.family.name], strict=True):
        assert one.overlay(0).shape == grids[-1], "of tiles the last shows the whole image"
        assert one.values[0].sum(-1).gt(0).all()
        if len(grids) > 1:
            last = one.values[0, 0, 0, -4:]
            assert one.overlay(0, 0, 0).flatten().tolist() == last.tolist()

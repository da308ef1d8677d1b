"""The table of published figures: known entries, inner consistency, and what it refuses."""

import json

import pytest

from veridical.metrics.published import FILE, bands, published


def one(*args, **chosen):
    (row,) = published(*args, **chosen)
    return row


@pytest.mark.parametrize(
    ("method", "model", "benchmark", "chosen", "value"),
    [
        ("vista", "llava-1.5-7b", "chair", {"paper": "vista", "decoding": "greedy", "figure": "chair_s"}, 20.4),
        ("vista", "instructblip-7b", "pope", {"decoding": "nucleus 0.9", "figure": "f1"}, 83.27),
        ("vhr", "llava-next-7b", "chair", {"paper": "vhr", "figure": "chair_i"}, 6.80),
        ("var", "qwen2-vl-7b", "pope", {"figure": "accuracy"}, 88.2),
        ("agla", "llava-1.5-7b", "pope", {"paper": "agla", "split": "random", "figure": "accuracy"}, 88.54),
        ("avc", "llava-1.5-7b", "amber", {"figure": "score"}, 84.60),
        ("avc", "instructblip-7b", "mme_hallucination", {"figure": "total"}, 473.80),
        ("opera", "llava-1.5-7b", "chair", {"paper": "opera", "max_new_tokens": 512, "figure": "chair_s"}, 44.6),
        ("imbalanced", "llava-1.5-7b", "chair", {"figure": "f1"}, 71.8),
        ("mvp", "qwen-vl-7b", "pope", {"split": "popular", "figure": "precision"}, 94.40),
        ("greedy", "llava-1.5-7b", "chair", {"paper": "2502.03628", "figure": "chair_s"}, 46.4),
        ("vista", "minigpt-4", "mme", {"decoding": "beam 5"}, 1062.48),
        ("var", "vila-13b", "mmhal", {"figure": "hallucination_rate"}, 42.9),
        ("var", "llava-1.5-13b", "general", {"figure": "mmvp"}, 28.0),
        ("vhr", "llava-next-7b", "llava_bench", {"figure": "detailedness"}, 6.7),
        ("vicrop", "instructblip-7b", "general", {"figure": "v_star"}, 42.41),
        ("logit_lens", "shikra-7b", "detection", {"figure": "auroc"}, 69.1),
        ("dhcp", "not named", "detection", {"dataset": "pope"}, 96.8),
        ("lookback_lens", "llama-2-7b-chat", "guided_decoding", {"figure": "nq_em"}, 74.2),
    ],
)
def test_headline_figures_are_there(method, model, benchmark, chosen, value):
    assert one(method, model, benchmark, **chosen).value == value


def test_a_row_carries_its_setting_source_and_spread():
    row = one("vhr", "llava-1.5-7b", "chair", paper="vhr", figure="chair_s")
    assert (row.value, row.sd, row.kind, row.unit) == (33.32, 1.31, "paper", "percent")
    assert row.comparable == pytest.approx(0.3332)
    assert row.setting["max_new_tokens"] == 512
    assert row.setting["images"] == 500
    assert row.paper == "2412.13949"
    assert "VHR" in row.source


def test_units_follow_the_figure():
    assert one("vhr", "llava-1.5-7b", "chair", paper="vhr", figure="words").unit == "words"
    assert one("mvp", "llava-1.5-7b", "mme_hallucination", figure="total").comparable == 638.33


def test_a_hub_id_finds_the_same_rows_as_the_short_name():
    by_name = published("vista", "llava-1.5-7b", "chair")
    assert by_name
    assert published("vista", "llava-hf/llava-1.5-7b-hf", "chair") == by_name
    assert published("vista", "LLaVA-1.5-7B", "chair") == by_name


def test_rivals_measured_by_an_author_are_independent():
    kinds = {row.method: row.kind for row in published(model="llava-1.5-7b", benchmark="chair", paper="vista")}
    assert kinds["vista"] == kinds["plain"] == kinds["sla"] == "paper"
    assert kinds["pai"] == kinds["vcd"] == kinds["opera"] == "independent"


def test_greedy_is_plain_with_greedy_decoding():
    found = published("greedy", "llava-1.5-7b", "chair", figure="chair_s")
    assert found
    assert {row.method for row in found} == {"plain"}
    assert {row.setting.get("decoding") for row in found} <= {"greedy", None}


def test_bands_span_the_authors_and_the_others():
    band = bands("vhr", "llava-1.5-7b", "chair", max_new_tokens=512)["chair_s"]
    assert (band.paper, band.independent, band.low, band.high, band.n) == ((33.32, 33.32), (34.5, 34.5), 33.32, 34.5, 2)
    assert str(band) == "paper 33.3, independent 34.5"
    vista = bands("vista", "llava-1.5-7b", "chair", decoding="greedy")["chair_s"]
    assert vista.paper == (20.4, 20.4)
    assert vista.independent == (16.76, 36.0)


def test_what_nobody_reports_is_an_empty_band():
    assert bands("vhr", "shikra-7b", "amber") == {}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"method": "vsita"}, "no published figures of method 'vsita'. Did you mean vista"),
        ({"model": "embedded"}, "no published figures of model 'embedded'.*llava-1.5-7b"),
        ({"benchmark": "chairs"}, "benchmark 'chairs'. Did you mean chair.*Known: amber, chair"),
        ({"paper": "1234"}, "no published figures of paper '1234'"),
        ({"kind": "rumour"}, "Known: ablation, independent, paper"),
    ],
)
def test_unknown_names_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        published(**chosen)


def test_ablations_are_given_only_when_asked_for_and_never_widen_a_band():
    swept = published("imbalanced", "llava-1.5-7b", "chair", kind="ablation", figure="length")
    assert {row.setting["options"]["alpha"]: row.value for row in swept if row.setting["options"]["beta"] == 0.3} == {
        0.1: 96.9, 0.3: 96.0, 0.4: 97.3, 0.5: 99.9, 0.7: 179.7, 0.8: 41.1, 0.9: 10.0,
    }  # fmt: skip
    assert bands("imbalanced", "llava-1.5-7b", "chair")["chair_s"].low == 17.6
    assert len(published(kind="ablation")) > 100
    assert not [row for row in published() if row.kind == "ablation"]


def test_another_file_can_be_read(tmp_path):
    path = tmp_path / "made_up.json"
    table = {
        "paper": None, "own": ["vista"], "source": "made up", "benchmark": "chair", "setting": {},
        "figures": ["chair_s"], "rows": [["vista", "embedded", [[12.0, 1.5]]]],
    }  # fmt: skip
    content = {"papers": {}, "models": {"embedded": []}, "tables": [table]}
    path.write_text(json.dumps(content))
    assert bands("vista", "embedded", "chair", path=path)["chair_s"].paper == (12.0, 12.0)
    assert published(path=path)[0].sd == 1.5
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**content, "tables": [{**table, "figures": ["chair_s", "chair_i"]}]}))
    with pytest.raises(ValueError, match="table 1, vista on embedded: 1 values for 2 figures"):
        published(path=wrong)
    torn = tmp_path / "torn.json"
    torn.write_text('{"papers":\n {]}')
    with pytest.raises(ValueError, match=r"torn.json: line 2 is not JSON"):
        published(path=torn)
    with pytest.raises(FileNotFoundError, match="no file of published figures"):
        published(path=tmp_path / "none.json")


# Inner consistency: what a typing error would break


def grouped():
    rows: dict = {}
    for row in published():
        key = (row.method, row.model, row.benchmark, json.dumps(row.setting), row.source, row.note)
        rows.setdefault(key, {})[row.figure] = row.value
    return [(key, figures) for key, figures in rows.items() if "not self-consistent" not in key[-1]]


def test_every_figure_is_in_its_range():
    for row in [*published(), *published(kind="ablation")]:
        assert 0 <= row.value <= {"percent": 100, "points": 2800}.get(row.unit, 600), row
        assert row.source


def test_f1_follows_from_precision_and_recall():
    checked = 0
    for key, f in grouped():
        if {"precision", "recall", "f1"} <= f.keys():
            expected = 2 * f["precision"] * f["recall"] / (f["precision"] + f["recall"])
            loose = 0.7 if "mean over COCO" in key[-1] else 0.2  # a mean of F1s is not the F1 of means
            assert f["f1"] == pytest.approx(expected, abs=loose), key
            checked += 1
    assert checked > 80


def test_popes_accuracy_follows_from_precision_and_recall_at_one_half_yes():
    for key, f in grouped():
        if key[2] == "pope" and {"precision", "recall"} <= f.keys():
            recall, precision = f["recall"] / 100, f["precision"] / 100
            expected = 50 + 100 * (recall / 2 - recall / 2 * (1 / precision - 1))
            assert f["accuracy"] == pytest.approx(expected, abs=0.6), key


def test_mmes_parts_sum_to_the_total():
    for key, f in grouped():
        if key[2] == "mme_hallucination" and len(f) == 5:
            assert f["existence"] + f["count"] + f["position"] + f["color"] == pytest.approx(f["total"], abs=0.03), key


def test_the_amber_score_is_the_mean_of_its_halves():
    checked = [
        f["score"] == pytest.approx((100 - f["chair"] + f["f1"]) / 2, abs=0.011) for _, f in grouped() if "score" in f
    ]
    assert len(checked) == 8
    assert all(checked)


def test_no_figure_stands_twice_in_one_table():
    seen = set()
    for row in [*published(), *published(kind="ablation")]:
        key = (row.method, row.model, row.benchmark, json.dumps(row.setting), row.source, row.figure)
        assert key not in seen, key
        seen.add(key)


def test_what_was_left_out_is_said_in_the_file():
    content = json.loads(FILE.read_text(encoding="utf-8"))
    assert len(content["left_out"]) >= 5
    assert {row.paper for row in published()} - {None} == set(content["papers"])
    assert {row.model for row in published()} == set(content["models"])

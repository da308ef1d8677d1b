"""The request of an evaluation: stored as before, read from older folders, validated by Prefect, parsed once."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from veridical.flows.benchmarks.base import Source
from veridical.flows.detection.request import Detection
from veridical.flows.evaluation import request as requests
from veridical.flows.evaluation.request import Evaluation
from veridical.pipelines.model.spec import ModelSpec

# As version 0.1.0 wrote it, before the request was an object.
STORED = (
    '{"model": "embedded", "decoders": ["greedy", "vsv+pai"], "detectors": ["entropy"], "benchmarks": ["pope"], '
    '"source": {"coco": null, "split": null, "limit": 24, "seed": 3, "synonyms": null, "prompt": null, "suffix": null, '
    '"system": null, "prompt_name": null, "pope": "official", "images": null, "data": null}, "batch_size": 16, '
    '"device": "cpu", "dtype": "auto", "revision": null, "generation": {"max_new_tokens": 9}, "quantization": null, '
    '"attention": null}'
)
REQUEST = Evaluation(
    ModelSpec("embedded", "cpu"), ["greedy", "vsv+pai"], ["entropy"], ["pope"], Source(limit=24, seed=3),
    generation={"max_new_tokens": 9},
)  # fmt: skip


def test_a_request_is_stored_byte_for_byte_as_earlier_versions_stored_it():
    assert json.dumps(REQUEST.record()) == STORED


def test_the_request_of_an_older_folder_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"request": json.loads(STORED)}))
    assert Evaluation.read(tmp_path) == REQUEST


def test_a_folder_from_before_quantization_and_attention_is_read():
    record = json.loads(STORED)
    del record["quantization"], record["attention"], record["source"]["prompt_name"]
    assert Evaluation.from_record(record) == REQUEST


def test_a_name_that_is_repeated_counts_once_and_one_text_instead_of_a_list_is_refused():
    assert Evaluation(decoders=["vcd", "greedy", "vcd"]).decoders == ("vcd", "greedy")
    with pytest.raises(ValueError, match=r"decoders='vcd' is one text where a list is needed: write \['vcd'\]"):
        Evaluation(decoders="vcd")


def test_prefect_builds_a_request_from_the_parameters_of_a_deployment():
    found = TypeAdapter(Evaluation).validate_python({"decoders": ["vcd"], "source": {"limit": 3}})
    assert found == Evaluation(decoders=["vcd"], source=Source(limit=3))


@pytest.mark.parametrize(
    "parameters", [{"sources": {}}, {"source": {"limits": 3}}, {"model": {"name": "embedded", "devise": "cpu"}}]
)
def test_a_misspelt_parameter_of_a_deployment_is_refused_and_not_left_out(parameters):
    with pytest.raises(ValidationError, match="Unexpected keyword argument"):
        TypeAdapter(Evaluation).validate_python(parameters)


def test_a_detectors_request_is_stored_flat_and_read_again(tmp_path):
    request = Detection("pope", ["margin"], "dhcp", images=3, model=ModelSpec("embedded", dtype="fp32"))
    record = request.record()
    assert [*record][6:11] == ["test_images", "model", "device", "dtype", "revision"]
    assert "quantization" not in record
    (tmp_path / "request.json").write_text(json.dumps(record))
    assert Detection.read(tmp_path) == Detection(**{**vars(request), "detectors": ["margin"]})


def test_a_decoder_is_parsed_once_in_a_process(monkeypatch, tmp_path):
    """From the command line to the answers: names are checked, shown, prepared and decoded from one parse."""
    from typer.testing import CliRunner

    from veridical.cli.main import app
    from veridical.pipelines import chain

    parsed, parse = [], chain.make_chain

    def counted(wanted, *more):
        parsed.extend([one for one in wanted if isinstance(one, str)])
        return parse(wanted, *more)

    monkeypatch.setattr(chain, "make_chain", counted)
    requests.chain.cache_clear()
    words = ["evaluate", "--no-prefect", "-d", "vcd:alpha=0.75", "--benchmark", "pope", "--limit", "1", "--out"]
    shown = CliRunner().invoke(app, [*words, str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert parsed == ["vcd:alpha=0.75"]

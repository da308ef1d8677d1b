"""`veridical caption` on many images: the command, its files, how it goes on, and what it refuses."""

import errno
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.main import get_command

from veridical.cli.main import app
from veridical.datasets.captions import DETAIL_PROMPT
from veridical.flows.captioning import batch_retry, image_loader, request, run, settings, shard, shard_format
from veridical.flows.captioning import images as sources
from veridical.flows.captioning.job import Job, ledger, remaining
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.flows.captioning.shard import caption_shard
from veridical.flows.evaluation import answer_file
from veridical.flows.files import atomic, lock
from veridical.models import EMBEDDED as MODEL
from veridical.models import MATCHER
from veridical.pipelines.matching.load import load_matcher
from veridical.pipelines.model.spec import ModelSpec, load

DECODERS = ("greedy", "vcd")
SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Seven images of three sizes, one of them cut off."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(7):
        Image.effect_noise((20 + number % 3, 24), 80).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def plain(images, tmp_path_factory) -> Path:
    """A finished job; to be looked at, not changed."""
    out = tmp_path_factory.mktemp("plain") / "out"
    caption(images, out)
    return out


def caption(images: Path, out: Path, retry_errors: bool = False, **changes: object) -> None:
    """A small job, with changes to its request."""
    fields = {"decoders": DECODERS, "detectors": ["entropy"], "shard_size": 3, "batch_size": 2, "generation": SHORT}
    run.captioning(Captioning([str(images)], **{**fields, **changes}), str(out), retry_errors)


@pytest.fixture
def copy(plain, tmp_path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(plain, tmp_path / "out"))


def lvlm():
    return load(EMBEDDED)


# -- what it writes ------------------------------------------------------------------------------------------------
def test_rows_say_what_the_model_says_of_each_image(images, plain):
    rows = shard_format.read(plain / "captions.parquet")
    assert [(row["id"], row["decoder"]) for row in rows] == [(f"{n}.png", d) for n in range(7) for d in DECODERS]
    row = rows[3]
    [answer] = lvlm().caption(
        images / "1.png", ["vcd"], ["entropy"], prompt=DETAIL_PROMPT, **SHORT
    )  # fmt: skip
    assert (row["caption"], row["tokens"]) == (answer.text, answer.tokens)
    assert row["risk"]["entropy"] == pytest.approx(answer.risk["entropy"], abs=1e-4)
    assert row["acted"]["vcd"]["steps"] == len(answer.tokens)
    assert row["settings"] == json.loads((plain / "job.json").read_text("utf-8"))["settings_sha256"][:16]
    assert [row["error"] is not None for row in rows[8:10]] == [True, True]


def test_the_ledger_and_the_summary_add_up(plain):
    lines = [json.loads(line) for line in (plain / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert [(line["shard"], line["rows"], line["errors"]) for line in lines] == [(0, 6, 0), (1, 6, 2), (2, 2, 0)]
    summary = atomic.read_json(plain / "summary.json")
    assert summary["images"] == 7
    assert summary["decoders"]["vcd"] == {"rows": 7, "errors": 1, "tokens": 24}
    timed = [json.loads(line) for line in (plain / "timings.jsonl").read_text("utf-8").splitlines()]
    assert len(timed) == 14
    assert all((line["seconds"] > 0) == (line["id"] != "4.png") for line in timed)


def test_json_lines_hold_the_same_as_parquet(images, plain, tmp_path):
    caption(images, tmp_path / "out", form="jsonl")
    rows, same = shard_format.read(tmp_path / "out" / "captions.jsonl"), shard_format.read(plain / "captions.parquet")
    without = lambda row: {name: value for name, value in row.items() if name != "settings"}
    assert list(map(without, rows)) == list(map(without, same))


def test_a_list_and_a_table_are_sources_too(images, tmp_path):
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{images}/{n}.png\n" for n in (3, 1)), encoding="utf-8")
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"path": [f"{images}/5.png"], "id": ["five"], "more": [1]}), table)
    found = [sources.find([str(path)]).items for path in (names, table)]
    assert [[one.id for one in part] for part in found] == [[f"{images}/1.png", f"{images}/3.png"], ["five"]]
    assert found[1][0].path == f"{images}/5.png"


def test_the_merged_file_is_the_same_however_its_rows_come(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_format, "_GROUP", 4)
    rows = shard_format.read(plain / "captions.parquet")
    for name, size in (("a.parquet", 1), ("b.parquet", 9)):
        with shard_format.merging(tmp_path / name) as add:
            for start in range(0, len(rows), size):
                add(rows[start : start + size])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 4


# -- batches and seeds ---------------------------------------------------------------------------------------------
def test_batches_are_of_like_length_longest_first_and_in_the_plans_order():
    count = lambda image_sizes: {"num_image_tokens": [height // 10 for height, _ in image_sizes]}
    model = SimpleNamespace(processor=SimpleNamespace(_get_num_multimodal_tokens=count))
    heights = [10, 30, 20, 30, 10, 99]
    error = {99: "bad"}
    files = [image_loader.EncodedImage(n, None, size=(h, 1), error=error.get(h)) for n, h in enumerate(heights)]
    assert [[one.place for one in batch] for batch in image_loader.batches(files, model, 2)] == [[1, 3], [2, 0], [4]]
    model.processor = object()  # one that cannot say: pixels
    assert [[one.place for one in batch] for batch in image_loader.batches(files, model, 3)] == [[1, 3, 2], [0, 4]]


def test_a_batch_of_large_images_is_cut_where_they_would_not_fit_into_memory():
    """Sixteen PNGs of 6 KB and 49 Mpx at batch 8: four at a time, by their sizes alone, and never none."""
    files = [image_loader.EncodedImage(n, None, size=(7000, 7000)) for n in range(16)]
    model = SimpleNamespace(processor=object())
    sizes = [len(batch) for batch in image_loader.batches(files, model, 8)]
    assert sizes == [4, 4, 4, 4]
    assert 4 * 3 * 7000**2 <= image_loader.BUDGET // 2 < 5 * 3 * 7000**2
    assert [len(batch) for batch in image_loader.batches(files, model, 8, None)] == [8, 8], "as earlier jobs had them"
    assert [len(batch) for batch in image_loader.batches(files, model, 8, 10)] == [1] * 16
    photos = [image_loader.EncodedImage(n, None, size=(3000, 4000)) for n in range(32)]
    assert [len(batch) for batch in image_loader.batches(photos, model, 16)] == [16, 16], "ordinary photos are not cut"


@pytest.mark.parametrize(("budget", "most"), [(10**12, 3), (2 * 3 * 20 * 20, 2), (1, 1)])
def test_no_more_is_decoded_ahead_than_fits_into_the_budget(tmp_path, monkeypatch, budget, most):
    content = io.BytesIO()
    Image.new("RGB", (20, 20)).save(content, "PNG")
    files = [image_loader.EncodedImage(n, sources.ImageItem(str(n), str(n)), content.getvalue(), size=(20, 20))
             for n in range(6)]  # fmt: skip
    monkeypatch.setattr(image_loader, "BUDGET", budget)
    limits, seen = image_loader.Limits(10**6, 10**6), []
    with ThreadPoolExecutor(1) as pool:
        for batch in image_loader.decoded(pool, [[file] for file in files], limits):
            pool.submit(int).result()  # the only thread: what was submitted before it is done
            seen.append(sum(file.content is None for file in files) - batch[0][0].place)
    assert max(seen) == most


def test_an_image_is_sampled_with_its_place_in_the_plan(images, tmp_path):
    hot = {"do_sample": True, "temperature": 1.5, "top_k": 0, "top_p": 1.0, **SHORT}
    caption(images, tmp_path / "out", decoders=["greedy"], seed=5, generation=hot)
    for place, row in enumerate(shard_format.read(tmp_path / "out" / "captions.parquet")):
        if row["error"] is None:
            [alone] = lvlm().answer(images / row["id"], DETAIL_PROMPT, seed=5 + place, **hot)
            assert row["caption"] == alone.text


@pytest.mark.parametrize("generation", [SHORT, {**SHORT, "do_sample": True, "temperature": 1.5, "top_k": 0}])
def test_a_caption_does_not_depend_on_what_else_is_in_its_batch(images, tmp_path, generation):
    found = {}
    for size in (1, 3, 7):
        out = tmp_path / str(size)
        caption(images, out, batch_size=size, shard_size=7, generation=generation)
        found[size] = shard_format.read(out / "captions.parquet")
    for size in (3, 7):
        for row, alone in zip(found[size], found[1], strict=True):
            same = ("id", "decoder", "caption", "tokens", "error")
            assert [row[name] for name in same] == [alone[name] for name in same]
            assert row["risk"].get("entropy", []) == pytest.approx(alone["risk"].get("entropy", []), abs=1e-5)


def test_answer_takes_a_seed_for_each_image(images):
    with pytest.raises(ValueError, match="2 seeds for 1 images; give one number, or one for each"):
        lvlm().answer(images / "0.png", "?", seed=[1, 2])


# -- going on ------------------------------------------------------------------------------------------------------
def test_a_finished_job_asks_nothing_again(images, copy, monkeypatch):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    monkeypatch.setattr(type(lvlm()), "answer", lambda *arguments, **options: pytest.fail("asked again"))
    caption(images, copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_the_same_folder_by_another_name_is_the_same_and_another_by_the_same_name_is_not(
    images, copy, tmp_path, monkeypatch
):
    monkeypatch.chdir(images.parent)
    caption(Path(images.name), copy)
    (tmp_path / "there").mkdir()
    shutil.copytree(images, tmp_path / "there" / images.name)
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(answer_file.OtherSettings, match="sources was"):
        caption(Path(images.name), copy)


def test_a_finished_job_says_so_at_once_and_other_settings_are_refused_before_anything_heavy_is_loaded(images, copy):
    """In a process of its own, whose modules can be looked at; its own time, as another process may hold it up."""
    code = (
        "import sys, time\nfrom veridical.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    print('exit', end.code)\n"
        "print('heavy', *({'torch', 'prefect', 'transformers'} & set(sys.modules)))\n"
        "print('seconds', time.process_time())"
    )
    words = ["caption", images, "--out", copy, "-d", "greedy", "-d", "vcd", "-t", "entropy", "--shard-size", 3, "-b", 2]
    for more, exit_code, message in (
        (["--max-new-tokens", 4], 1, f"captions: {copy / 'captions.parquet'}"),
        (["--max-new-tokens", 5], 2, "was begun with other settings: generation was"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, [*words, *more])], capture_output=True, text=True, check=True
        )
        assert message in done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert f"exit {exit_code}" in lines
        assert "heavy" in lines, "nothing after it"
        assert float(lines[-1].removeprefix("seconds")) < 2


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_a_shard_that_was_damaged_is_made_again(images, plain, copy, damage):
    path = copy / "shards" / "000001.parquet"
    path.write_bytes(b"x") if damage == "other bytes" else path.unlink()
    assert remaining(Job.read(copy), ledger(Job.read(copy))) == [1]
    caption(images, copy)
    assert path.read_bytes() == (plain / "shards" / "000001.parquet").read_bytes()
    assert (copy / "captions.parquet").read_bytes() == (plain / "captions.parquet").read_bytes()


def test_a_shard_with_the_rows_of_another_is_refused(images, copy):
    lines = atomic.lines(copy / "ledger.jsonl").records
    shutil.copy(copy / "shards" / "000000.parquet", copy / "shards" / "000001.parquet")
    lines[1]["sha256"] = lines[0]["sha256"]
    atomic.rewrite(copy / "ledger.jsonl", lines)
    with pytest.raises(ValueError, match=r"000001\.parquet has not one row per planned image and decoder"):
        run.finish(str(copy))


def test_the_plan_stays_when_images_come_and_go(images, tmp_path):
    folder = Path(shutil.copytree(images, tmp_path / "images"))
    out = tmp_path / "out"
    caption(folder, out)
    shutil.copy(folder / "0.png", folder / "new.png")
    (folder / "0.png").unlink()
    caption(folder, out)
    assert atomic.read_json(out / "summary.json")["images"] == 7


def test_only_errors_are_tried_again(images, tmp_path):
    folder, out = Path(shutil.copytree(images, tmp_path / "images")), tmp_path / "out"
    caption(folder, out)
    shutil.copy(folder / "0.png", folder / "4.png")
    before = shard_format.read(out / "captions.parquet")
    others = {n: (out / "shards" / f"00000{n}.parquet").stat().st_mtime_ns for n in (0, 2)}
    caption(folder, out)
    assert shard_format.read(out / "captions.parquet") == before, "not without being told to"
    caption(folder, out, retry_errors=True)
    after = shard_format.read(out / "captions.parquet")
    assert [row["id"] for row, old in zip(after, before, strict=True) if row != old] == ["4.png", "4.png"]
    assert all(row["error"] is None and row["caption"] for row in after)
    assert others == {n: (out / "shards" / f"00000{n}.parquet").stat().st_mtime_ns for n in (0, 2)}
    assert (out / "errors.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "seed was 0, now 7"),
        ({"generation": {"max_new_tokens": 9}}, '"max_new_tokens": 9'),
        ({"detectors": []}, "detectors was"),
        ({"shard_size": 2}, "shard size was 3, now 2"),
        ({"model": "other"}, 'model was "embedded", now "other"'),
        ({"question": "What?"}, "question was"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(images, copy, changes, message):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(answer_file.OtherSettings) as refused:
        caption(images, copy, **changes)
    assert message in str(refused.value)
    assert "Choose another --out" in str(refused.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_worker_with_other_versions_is_refused(copy, monkeypatch):
    versions = {**settings.provenance.versions(), "torch": "0.1"}
    monkeypatch.setattr(settings.provenance, "versions", lambda: versions)
    shard.check_worker.cache_clear()
    with pytest.raises(answer_file.OtherSettings, match=r'version of torch was ".*", now "0\.1"'):
        shard.caption_shard(str(copy), 0)
    shard.check_worker.cache_clear()


def test_a_request_is_what_its_record_says_with_its_model_specification():
    full = ModelSpec("a", "cuda", "bf16", None, "bnb-4bit", "eager")
    requests = Captioning(["b", "c"], full, decoders=["greedy", "vcd", "greedy"], generation={"max_new_tokens": 5})
    assert requests.decoders == ("greedy", "vcd")
    assert Captioning("photos", "embedded") == Captioning(["photos"], EMBEDDED)
    assert Captioning.from_record(json.loads(json.dumps(requests.record()))) == requests
    old = {**requests.record(), "allow_urls": True}
    del old["quantization"], old["attention"]
    assert Captioning.from_record(old).model == ModelSpec("a", "cuda", "bf16")


def test_what_a_procedure_cannot_do_is_said_before_the_first_image(images, tmp_path):
    with pytest.raises(ValueError, match=r"MVP chooses between .* closed questions"):
        caption(images, tmp_path / "out", decoders=["mvp"])
    assert not (tmp_path / "out" / "job.json").exists()


def test_two_jobs_cannot_work_in_one_folder(images, copy):
    with lock.locked(copy), pytest.raises(lock.InUse, match=f"in use by process {os.getpid()}"):
        caption(images, copy)


def test_flow_and_function_take_the_same_arguments():
    from veridical.flows.caption import overnight

    flow, function = inspect.signature(overnight.fn).parameters, inspect.signature(run.captioning).parameters
    assert {name: p.default for name, p in flow.items()} == {
        name: p.default for name, p in function.items() if name != "steps"
    }


def test_a_deployments_parameters_in_json_are_a_request():
    """As `prefect deployment run caption/caption --param request=…` sends them."""
    from veridical.flows.caption import overnight

    sent = {"sources": ["photos"], "model": {"name": "a", "dtype": "bf16"}, "decoders": ["vcd"]}
    found = overnight.validate_parameters({"request": sent, "out": "b"})
    assert found["request"] == Captioning(["photos"], ModelSpec("a", dtype="bf16"), ["vcd"])


# -- the command ---------------------------------------------------------------------------------------------------
def command(images, out, *more):
    return ["caption", images, "--out", out, "--shard-size", 3, "--max-new-tokens", 4, "--no-prefect", *more]


def test_the_command_says_where_the_captions_are_and_what_failed(veridical, images, tmp_path):
    shown = veridical(*command(images, tmp_path / "out"))
    assert shown.exit_code == 1
    assert f"captions: {tmp_path / 'out' / 'captions.parquet'}" in shown.stdout
    assert "greedy: 1 of 7 images have no caption" in shown.stderr
    assert "--retry-errors captions those alone again" in shown.stderr
    assert "7/7" in shown.stderr
    assert "images/s" in shown.stderr
    assert "1 errors" in shown.stderr


def test_image_files_can_be_a_job_and_a_good_one_exits_with_0(veridical, images, tmp_path):
    shown = veridical(*command(images / "0.png", tmp_path / "out", "--format", "jsonl"))
    assert shown.exit_code == 0, shown.stderr
    assert [row["id"] for row in shard_format.read(tmp_path / "out" / "captions.jsonl")] == [str(images / "0.png")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, out: ["caption", images], "holds many images: add --out FOLDER"),
        (lambda images, out: command(images, out, "--format", "xml"), "--format xml: no such choice"),
        (lambda images, out: command(images, out, "-d", "vdc"), 'Did you mean "vcd"?'),
        (lambda images, out: command(out.parent / "none.txt", out), "no file"),
        (lambda images, out: command(out.parent, out), "no images in"),
        (lambda images, out: [*command(images, out), images / "0.png"], "beside other images"),
        (lambda images, out: command(images, out, "--json"), "choose --format jsonl instead"),
        (lambda images, out: ["caption", images / "0.png", "--retry-errors"], "--retry-errors is for many images"),
        (lambda images, out: ["caption", ""], "an image has an empty name"),
        (lambda images, out: command("https://x.example/a.png", out), "https://x.example/a.png; nothing is fetched"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(veridical, images, tmp_path, change, message):
    shown = veridical(*change(images, tmp_path / "x" / "out"))
    assert shown.exit_code == 2, shown.output
    assert message in shown.stderr
    assert not list(tmp_path.rglob("shards"))


@pytest.mark.parametrize(
    ("error", "message"),
    [(batch_retry.ModelFailed("broken: start again"), "Error: broken: start again\n"),
     (atomic.DiskFull(errno.ENOSPC, "no room to write x"), "no room to write x")],
)  # fmt: skip
def test_a_job_that_stopped_says_so_in_one_line_and_exits_with_1(
    veridical, images, tmp_path, monkeypatch, error, message
):
    def stop(*arguments, **named):
        raise error

    monkeypatch.setattr(run, "captioning", stop)
    shown = veridical(*command(images, tmp_path / "out"))
    assert (shown.exit_code, shown.stderr.count("\n")) == (1, 1)
    assert message in shown.stderr
    assert "please report" not in shown.stderr


def test_the_document_names_the_columns_the_options_and_the_defaults_that_there_are():
    document = (Path(__file__).parents[3] / "docs" / "overnight.md").read_text("utf-8")
    assert [name for name in shard_format.COLUMNS if f"`{name}`" not in document] == []
    options = {p.name for p in get_command(app).commands["caption"].params}
    named = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", document)}
    assert named - options <= {"format", "runs", "help", "repair", "no_prefect"}
    for number in (request.MAX_PIXELS, request.MAX_BYTES):
        assert f"({number:,})" in document
    assert all(suffix in document for suffix in sources.SUFFIXES)


# -- what answers depend on beside the weights ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder_model(tmp_path_factory) -> Path:
    """The embedded model under a name of its own, whose files can be changed."""
    return Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("model") / "mine"))


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json", "chat_template.jinja",
                                  "generation_config.json"])  # fmt: skip
def test_a_model_file_that_changed_since_the_job_began_is_refused(images, tmp_path, folder_model, name):
    own = Path(shutil.copytree(folder_model, tmp_path / "mine"))
    caption(images / "0.png", tmp_path / "out", model=str(own), detectors=[], decoders=["greedy"])
    (tmp_path / "out" / "shards" / "000000.parquet").unlink()
    (own / name).write_text((own / name).read_text("utf-8") + "\n", encoding="utf-8")
    with pytest.raises(answer_file.OtherSettings, match=rf'file {re.escape(name)} was ".*, now'):
        caption(images / "0.png", tmp_path / "out", model=str(own), detectors=[], decoders=["greedy"])


def test_a_probe_that_is_swapped_while_a_job_is_at_work_stops_it(images, tmp_path):
    probe = Path(shutil.copytree(MODEL.parent / "detectors" / "lookback_lens", tmp_path / "probe"))
    swap = lambda: save_file(
        {name: value + 1 for name, value in load_file(probe / "detector.safetensors").items()},
        probe / "detector.safetensors",
    )
    fields = {"detectors": [f"lookback_lens:weights={probe}"], "decoders": ["greedy"]}

    def swapped_after(out, shard, retry_errors):
        done = caption_shard(out, shard, retry_errors)
        swap()
        return done

    request = Captioning([str(images)], shard_size=3, generation=SHORT, **fields)
    with pytest.raises(answer_file.OtherSettings, match=r"probe of lookback_lens:weights=.* was "):
        run.captioning(request, str(tmp_path / "out"), steps=run.Steps(shard=swapped_after))
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 1
    with pytest.raises(answer_file.OtherSettings, match=r"probe of lookback_lens:weights=.* was "):
        run.captioning(request, str(tmp_path / "out"))


def test_another_matcher_under_the_same_name_is_refused(images, tmp_path):
    own = Path(shutil.copytree(MATCHER, tmp_path / "matcher"))
    fields = {"detectors": [], "decoders": [f"agla:matcher=open_clip:{own}"]}
    caption(images / "0.png", tmp_path / "out", **fields)
    weights = own / "open_clip_model.safetensors"
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    load_matcher.cache_clear()  # as in another process
    with pytest.raises(answer_file.OtherSettings, match=r"matcher of agla:matcher=open_clip:.* was "):
        caption(images / "0.png", tmp_path / "out", **fields)

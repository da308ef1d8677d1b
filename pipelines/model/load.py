"""Loads a vision-language model from a Hub id, a folder, or the one that is shipped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from ...models import SHIPPED
from ..lvlm import LVLM
from . import checkpoint_files, memory, smollm2
from .embedded import EMBEDDED, FOLDER
from .layout import UnsupportedModel
from .quantization import check_attention, quantization_config

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class CannotLoad(OSError):
    """A model that could not be loaded; the message names what was expected and what to do."""


class Incomplete(UserWarning):
    """Weights of the vision encoder that the files lack, and that transformers drew at random."""


def load(
    name: str | Path, device: str | Mapping[str, str | int] = "auto", dtype: str | torch.dtype = "auto",
    revision: str | None = None, quantization: Any = None, attention: str | None = None,
    trust_remote_code: bool = False, check_memory: bool = True, rows: int = 1,
) -> LVLM:  # fmt: skip
    """A model and its processor, ready for `caption` and `generate`.

    Args:
        name: "embedded", "embedded-smollm2" (its base is installed apart: docs/embedded_smollm2.md), a folder, or a Hub
            id such as "llava-hf/llava-1.5-7b-hf".
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "balanced" to spread layers over GPUs and, if
            they are full, the CPU's memory; or accelerate's map of module names to devices, "cpu" and "disk".
        dtype: "auto" (as saved; float32 on CPU), "bf16", "fp16", "fp32" or a torch.dtype.
        quantization: "bnb-4bit", "bnb-8bit", "torchao-int8", or a transformers quantization config.
        attention: "sdpa", "eager", "flash_attention_2", "flex_attention": what layers use that no method touches. None
            is sdpa where the model has it, else eager (PaliGemma 2, whose scores are soft-capped).
        trust_remote_code: run Python code from the repository; only if you have read it.
        check_memory: refuse weights that do not fit into what is free, before any is read, and name what would.
        rows: how many prompts at a time the check allows for; a decoder with branches has several rows of each.

    Raises:
        CannotLoad: no such model, no processor, or files missing.
        TooLarge: the weights do not fit. NotPossible: a quantisation or attention kernel that this machine lacks.
        UnsupportedModel: a text-only model, or one whose layout is not understood.
    Warns:
        Tight: the weights fit, but perhaps not what a run needs beside them.
    """
    if not isinstance(name, str | os.PathLike):
        raise CannotLoad(f"name={name!r} names no model: give a folder with config.json, a Hub id, or 'embedded'")
    if smollm2.folder_of(str(name)) is not None:
        return _on_its_base(str(name), device, dtype, revision, quantization, attention)
    source = _source(str(name))
    _refuse_no_folder(str(name), source, revision)
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    where = _device(device)
    check_attention(attention, where)
    try:
        config = AutoConfig.from_pretrained(source, **common)
    except (OSError, ValueError) as error:
        raise CannotLoad(_explain(name, source, revision, error)) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UnsupportedModel(
            f"{name} is a {config.model_type!r} model, which reads no images; looked for one of transformers' "
            "image-text-to-text models, such as llava, qwen2_5_vl, internvl or gemma3"
        )
    try:
        processor = AutoProcessor.from_pretrained(source, **common)
    except Exception as error:  # the tokenizers library raises all kinds for a file that is damaged
        raise CannotLoad(
            f"{name} has no processor that can be loaded: looked for processor_config.json or preprocessor_config.json "
            f"and a tokenizer; found {_files(source, revision)}. Copy them from the model's original folder. "
            f"({type(error).__name__}, {_first_line(error)})"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise CannotLoad(
            f"{name} has a tokenizer but no image processor: looked for processor_config.json or "
            f"preprocessor_config.json; found {_files(source, revision)}. Copy them from the model's original folder."
        )
    if attention is None and getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None:
        attention = "eager"  # what newer transformers takes by itself; in 5.20 sdpa leaves the scores uncapped
    wanted = _dtype(dtype, where, config)
    known = _known_dtype(wanted, config)
    quantised = quantization_config(quantization, known)
    if isinstance(where, dict):
        _refuse_tied_on_disk(str(name), config, where)
    elif check_memory:
        memory.check(str(name), config, where, known, quantization, rows)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(  # a pair, with output_loading_info
            source, dtype=wanted, device_map=where, quantization_config=quantised, output_loading_info=True,
            attn_implementation=attention, use_safetensors=True, **common,
        )  # fmt: skip
    except SafetensorError as error:
        why = f"a weight file is damaged or cut short ({error}): copy or download it again."
        raise CannotLoad(_explain(name, source, revision, why)) from error
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        lost = checkpoint_files.missing(checkpoint_files.local(source, revision))
        if not lost and "ignore_mismatched_sizes" in str(error):
            lost = "its weights have other shapes than its config.json says: one of the two belongs to another model."
        raise CannotLoad(_explain(name, source, revision, lost or error)) from error
    model, report = loaded
    _refuse_random_weights(str(name), report["missing_keys"])
    return LVLM(model.eval(), processor, name=str(name), revision=revision or getattr(config, "_commit_hash", None))


def _on_its_base(
    name: str, device: Any, dtype: Any, revision: str | None, quantization: Any, attention: str | None
) -> LVLM:
    """embedded-smollm2: what was trained here, merged into SmolLM2's weights; float32 unless a dtype is given."""
    where = _device(device)
    for setting, value in {"revision": revision, "quantization": quantization}.items():
        if value is not None:
            raise CannotLoad(f"{setting}={value!r}: {name} has none, as it is merged when it is loaded")
    if not isinstance(where, str) or where == "auto":
        raise CannotLoad(f"device={device!r}: {name} is small and stays on one: auto, cpu, cuda, cuda:0, …")
    check_attention(attention, where)
    wanted = torch.float32 if dtype == "auto" else _dtype(dtype, where, None)
    try:
        model, processor = smollm2.build(smollm2.folder_of(name) or Path())
    except smollm2.NoBase as error:
        raise CannotLoad(str(error)) from error
    placed: Any = model
    placed.set_attn_implementation(attention or "sdpa")
    return LVLM(placed.to(device=where, dtype=wanted), processor, name=name)


def _source(name: str) -> str:
    return str(FOLDER) if name == EMBEDDED else name


def _refuse_no_folder(name: str, source: str, revision: str | None) -> None:
    """What can be known to be wrong with a name before anything is looked up."""
    if not name.strip():
        raise CannotLoad("no model is named: give a folder with config.json, a Hub id, or 'embedded'")
    if not Path(source).exists() and (close := get_close_matches(name.lower(), SHIPPED, 1, cutoff=0.75)):
        raise CannotLoad(
            f"no model {name!r}. Did you mean {close[0]!r}? Otherwise give a folder with config.json, or a Hub id."
        )
    if Path(source).is_file():
        raise CannotLoad(f"{name} is a file: give the folder it is in, with config.json and the processor's files")
    if revision is not None and Path(source).is_dir() and revision not in Path(source).resolve().parts:
        raise CannotLoad(f"revision={revision!r}, but {name} is a folder here, which has none: leave revision out")


def _device(device: str | Mapping[str, str | int]) -> Any:
    if not isinstance(device, str):
        for one in device.values():
            _there(one if isinstance(one, str) else f"cuda:{one}")
        return dict(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "balanced":
        return "auto"
    return _there(device)


def _there(device: str) -> str:
    """The device, if it is here; "disk" is."""
    if device == "disk":
        return device
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise CannotLoad(f"device={device!r} is none of auto, cpu, cuda, cuda:0, cuda:1, …, balanced") from error
    count = torch.cuda.device_count()
    if found.type == "cuda" and not torch.cuda.is_available():
        raise CannotLoad(f"device={device!r}, but torch finds no GPU here; use device='cpu' or 'auto'")
    if found.type == "cuda" and (found.index or 0) >= count:
        raise CannotLoad(f"device={device!r}, but there are {count} GPUs here, the last is cuda:{count - 1}")
    return device


def _refuse_tied_on_disk(name: str, config: Any, places: Mapping[str, str | int]) -> None:
    """Embeddings and head that are one tensor: accelerate keeps it on disk under one name, and expects two."""
    if "disk" not in places.values() or not getattr(config, "tie_word_embeddings", False):
        return
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    tied = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    for path in (path for path, module in model.named_modules() if id(module) in tied):
        above = [part for part in places if part in ("", path) or path.startswith(f"{part}.")]
        if above and places[max(above, key=len)] == "disk":
            raise CannotLoad(f"{name} has one tensor for embeddings and head: put {path} on 'cpu', not on 'disk'")


def _dtype(dtype: str | torch.dtype, device: Any, config: Any) -> Any:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        places = set(device.values()) if isinstance(device, dict) else {device}
        without_gpu = {"cpu", "disk"} if torch.cuda.is_available() else {"cpu", "disk", "auto"}
        return torch.float32 if places <= without_gpu else "auto"
    if dtype not in _DTYPES:
        raise CannotLoad(f"dtype={dtype!r} is none of auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _known_dtype(wanted: Any, config: Any) -> torch.dtype:
    """The precision that "auto" stands for: the one the weights were saved in."""
    if isinstance(wanted, torch.dtype):
        return wanted
    saved = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return getattr(torch, saved) if isinstance(saved, str) else saved or torch.float32


def _refuse_random_weights(name: str, lost: Iterable[str]) -> None:
    """transformers draws weights that it does not find. In a vision encoder they may be unused; elsewhere never."""
    lost = sorted(lost)
    some = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
    if any("vision" not in weight for weight in lost):
        raise CannotLoad(
            f"{name} could not be loaded: its files lack {len(lost)} of the model's weights, such as {some}; "
            "transformers would draw them at random. Copy or download the files again."
        )
    if lost:
        warnings.warn(f"the files of {name} lack {some}; these weights are random", Incomplete, stacklevel=3)


def _files(source: str, revision: str | None) -> str:
    return checkpoint_files.listed(checkpoint_files.local(source, revision))


def _explain(name: str | Path, source: str, revision: str | None, why: Exception | str) -> str:
    folder = checkpoint_files.local(source, revision)
    if folder is not None:
        again = "" if Path(source).is_dir() else " It was downloaded before; what is missing has to be fetched online."
        return f"{name} could not be loaded: {_first_line(why)} Found: {checkpoint_files.listed(folder)}.{again}"
    if str(name).startswith(("/", ".", "~")):
        return f"no model folder {name}: it does not exist; give a folder with config.json, a Hub id, or 'embedded'"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    hint = " HF_HUB_OFFLINE is set, so only models that were downloaded before can be loaded." if offline else ""
    return (
        f"no model {str(name)!r}: it is neither 'embedded', nor a folder here, nor a model that could be fetched from "
        f"the Hub ({_first_line(why)}).{hint}"
    )


def _first_line(why: Exception | str) -> str:
    return str(why).strip().split("\n")[0]

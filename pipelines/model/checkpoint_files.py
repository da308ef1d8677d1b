"""What a model's folder has and lacks, so that an error can name the files."""

from __future__ import annotations

import json
from pathlib import Path

INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def local(source: str, revision: str | None = None) -> Path | None:
    """The folder of a model that is here: its own, or what was downloaded of a Hub id. Nothing is fetched."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def missing(folder: Path | None) -> str:
    """What a model needs and this folder lacks, as a sentence; "" if nothing, or without a folder."""
    if folder is None:
        return ""
    index = folder / INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            return f"{INDEX} cannot be read: download it again."
        lost = [shard for shard in shards if not (folder / shard).is_file()]
        if lost:
            return f"{len(lost)} of the {len(shards)} weight files that {INDEX} names are missing: {', '.join(lost)}."
    elif not list(folder.glob("*.safetensors")):
        other = sorted(path.name for kind in OTHER_WEIGHTS for path in folder.glob(kind))
        if other:
            return (
                f"there are no .safetensors weights; {', '.join(other)} is not read, since loading it can run code: "
                "save the model again with save_pretrained."
            )
        return f"there are no weights: looked for model.safetensors or {INDEX}."
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"there is no tokenizer: looked for {', '.join(TOKENIZERS)}."
    return ""


def listed(folder: Path | None) -> str:
    """The names of a folder's files, for an error."""
    if folder is None or not folder.is_dir():
        return "no such folder here"
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "an empty folder"

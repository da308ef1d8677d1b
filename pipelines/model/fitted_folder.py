"""Where something that was fitted on a model lies: a folder of this machine, or a repository of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def fitted_folder(where: str, files: Sequence[str], what: str) -> Path:
    """The folder that holds these files; from the Hub, where `where` is an id and no path, they are downloaded.

    Args:
        files: names that the folder must have, such as its configuration and its tensors.
        what: a noun in the plural for messages, such as "fitted directions".

    Raises:
        FileNotFoundError: a folder without one of the files, or neither a folder nor a repository.
    """
    folder = Path(where).expanduser()
    if all((folder / name).is_file() for name in files):
        return folder
    if folder.exists() or where.startswith(("/", ".", "~")) or where.count("/") != 1:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"no {what} in {where}: looked for {' and '.join(files)}; found {found}.")
    from huggingface_hub import hf_hub_download

    try:
        paths = [hf_hub_download(where, name) for name in files]
    except Exception as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"no {what} in {where!r}: neither a folder here nor on the Hub ({cause})") from error
    return Path(paths[0]).parent

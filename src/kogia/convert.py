"""`kogia convert`: a model from any form that Kogia reads into any that it writes, one tensor at a time."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from kogia.errors import FolderError, KogiaError
from kogia.files import read_json, write_json
from kogia.models.checkpoint import Checkpoint, open_checkpoint
from kogia.models.folder import refuse_missing_layers, refuse_other_copies, write_folder
from kogia.models.gguf_write import write_gguf
from kogia.models.quantised import BITS
from kogia.places import locate
from kogia.text.gguf import vocabulary
from kogia.text.tokenizer import load_tokenizer

FOLDER_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
                 "fp8": torch.float8_e4m3fn, "fp8-ue8m0": torch.float8_e4m3fn}  # fmt: skip
GGUF_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "q8_0": "q8_0", "q4_0": "q4_0"}
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
              "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "generation_config.json",
              "kogia.json", "README.md", "LICENSE*", "NOTICE*")  # fmt: skip
ORDER = ".order.json"  # in a folder that is being written: what is converted and how


class Listener:
    """Who wants to know how a conversion goes; does nothing by itself."""

    def warn(self, text: str) -> None:
        """Something that the other side will not understand as we do."""

    def progress(self, done: int, total: int) -> None:
        """Bytes written so far, and of the whole."""


def convert(
    model: str | Path, out: Path, dtype: str = "auto", listener: Listener | None = None, mtp_layers: int | None = None,
    quantize: str | None = None,
) -> Path:  # fmt: skip
    """Write `model` (anything `locate` finds) to `out`: a GGUF file if its name ends in .gguf, else a folder.

    dtype: a key of FOLDER_DTYPES or GGUF_DTYPES, or "auto": that of the embedding, so FP8 folders become BF16, and
    integers (GGUF files, folders that `quantize` made) FP32. `out` appears when it is complete. A folder that was
    being written when the process was killed is gone on with.
    mtp_layers: how many MTP layers to keep (GGUF only; None: all).
    quantize: "int8" or "int4", instead of a dtype: a folder in `models.quantised`'s layout, which only Kogia reads.
    Returns `out`.

    Raises:
        FolderError: the model cannot be read, `out` is there already, or a dtype that this form does not have.
        DiskFullError: free some space and convert again; what is written is not lost.
    """
    path, listener = locate(model), listener or Listener()
    is_gguf = out.suffix.lower() == ".gguf"
    known = GGUF_DTYPES if is_gguf else FOLDER_DTYPES
    if dtype not in ("auto", *known):
        raise FolderError(f"--dtype {dtype} is not one for {out.name}: there are auto, {', '.join(known)}")
    if quantize is not None:
        _refuse_quantize(quantize, dtype, out, is_gguf)
        dtype = quantize
    if mtp_layers is not None and (not is_gguf or mtp_layers < 0):
        raise FolderError(f"--mtp-layers {mtp_layers}: layers can be left out (0 or more kept) of a .gguf file only")
    if os.path.lexists(out):
        raise FolderError(f"{out} is there already: choose another name, or remove it first")
    checkpoint = open_checkpoint(path)
    refuse_missing_layers(path, checkpoint)
    refuse_other_copies(path, checkpoint)
    if dtype == "auto":
        dtype = str(checkpoint.read("model.embed_tokens.weight").dtype).removeprefix("torch.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if is_gguf:
            _to_gguf(path, checkpoint, out, GGUF_DTYPES[dtype], listener, mtp_layers)
        else:
            _to_folder(path, checkpoint, out, dtype, listener)
    except OSError as error:
        raise FolderError(f"{out} cannot be written: {error.strerror or error}") from None
    return out


def _refuse_quantize(quantize: str, dtype: str, out: Path, is_gguf: bool) -> None:
    if quantize not in BITS:
        raise FolderError(f"--quantize {quantize} is not known: there are {', '.join(BITS)}")
    if is_gguf:
        theirs = f"q{BITS[quantize]}_0"
        raise FolderError(
            f"--quantize {quantize} makes folders: for {out.name} choose --dtype {theirs}, llama.cpp's own"
        )
    if dtype != "auto":
        raise FolderError(f"--quantize {quantize} leaves nothing to --dtype {dtype}: what is not rounded is float32")


def _to_gguf(
    path: Path, checkpoint: Checkpoint, out: Path, dtype: str, listener: Listener, mtp_layers: int | None
) -> None:
    metadata, warnings = vocabulary(path, checkpoint.config.vocab_size)
    warnings += write_gguf(out, checkpoint, metadata, dtype, name=out.stem, mtp_layers=mtp_layers)
    for warning in warnings:
        listener.warn(warning)


def _to_folder(path: Path, checkpoint: Checkpoint, out: Path, dtype: str, listener: Listener) -> None:
    """Into a hidden folder beside `out` that takes its name when everything is in it. dtype: int8 and int4 as well."""
    partial = _begin(out, _order(path, dtype))
    tokenizer = load_tokenizer(path) if path.is_file() else None
    write_folder(
        partial, checkpoint, FOLDER_DTYPES.get(dtype, torch.float32),
        {"eos_token_id": sorted(tokenizer.stops)} if tokenizer else None,
        ue8m0=dtype == "fp8-ue8m0", resume=True, progress=listener.progress, quantise=dtype if dtype in BITS else None,
    )  # fmt: skip
    if tokenizer is None:
        _copy_companions(path, partial, listener)
    else:
        tokenizer.save(partial)
    if not (partial / "tokenizer.json").is_file():
        listener.warn(f"{path} has no tokenizer.json, so {out} has none either")
    (partial / ORDER).unlink()
    os.rename(partial, out)


def _copy_companions(path: Path, partial: Path, listener: Listener) -> None:
    """Tokenizer, licence and the like. Links are followed within Hugging Face's cache only, which is made of them."""
    home = path.resolve()
    home = home.parent.parent if home.parent.name == "snapshots" else home
    for file in (file for pattern in COMPANIONS for file in sorted(path.glob(pattern)) if file.is_file()):
        if file.resolve().is_relative_to(home):
            shutil.copyfile(file, partial / file.name)
        else:
            listener.warn(f"{file} is a link to somewhere else and was left out")


def _order(path: Path, dtype: str) -> dict[str, Any]:
    """What makes a half-written folder worth going on with: the same source, unchanged, and the same dtype."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    sizes = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}
    return {"from": str(path.resolve()), "files": sizes, "dtype": dtype}


def _begin(out: Path, order: dict[str, Any]) -> Path:
    """The folder to write into: an earlier one of the same order, without the files that a kill left unfinished."""
    partial = out.parent / f".{out.name}.partial"
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise FolderError(f"{partial} is in the way: {out} is prepared in a folder of that name")
    try:
        same = partial.is_dir() and read_json(partial / ORDER) == order
    except KogiaError:
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_json(partial / ORDER, order)
    for file in partial.glob(".*"):
        if file.name != ORDER and not file.is_dir():
            file.unlink()
    return partial

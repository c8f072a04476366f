"""A user's mistakes: one clear line on stderr, exit code 2, and nothing destroyed."""

import json
import shutil
import subprocess
import sys

import pytest
from command import TINY, kogia, run_tiny


def refused(*arguments):
    code, out, errors = kogia(*arguments)
    assert code == 2, (code, out, errors)
    line = errors.strip()
    assert line.startswith("error: ") and "\n" not in line and "Traceback" not in out + errors, errors
    return line


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("rl.stpes=2", "did you mean 'steps'"),
        ("rl.steps=many", "rl.steps"),
        ("model.n_group=3", "n_group = 3"),
        ("model.num_attention_heads=0", "num_attention_heads is 0"),
        ('text.files=["/nowhere/at/all/*.txt"]', "matches no file"),
    ],
)
def test_recipe(tmp_path, setting, words):
    assert words in refused("run", TINY, "--out", tmp_path / "run", "--set", setting)


def test_an_empty_corpus_file_and_an_empty_corpus(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    files = f'text.files=["{tmp_path / "empty.txt"}"]'
    assert "holds no text" in refused("run", TINY, "--out", tmp_path / "a", "--set", files)
    nothing = ("--set", "text.stdlib_bytes=0", "--set", "text.solutions=0")
    assert "corpus is empty" in refused("run", TINY, "--out", tmp_path / "b", *nothing)


def test_a_folder_of_another_recipe_or_of_something_else(tiny_run, tmp_path):
    out, _ = tiny_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert "another recipe (rl.steps differs)" in refused(*run_tiny(out, "--set", "rl.steps=4"))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (tmp_path / "thesis.txt").write_text("my only copy")
    assert "not a Kogia run" in refused("run", TINY, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_price_may_change_between_two_sittings(tiny_run):
    code, _, errors = kogia(*run_tiny(tiny_run[0], "--set", "price.per_chip_hour=0.2"))
    assert code == 0, errors


@pytest.fixture
def broken(tiny_run, tmp_path):
    """A copy of the final model folder to break."""
    return shutil.copytree(tiny_run[0] / "final", tmp_path / "model")


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def another_programs(folder):
    import torch
    from safetensors.torch import save_file

    save_file({"bert.embeddings.weight": torch.zeros(4, 4)}, folder / "model.safetensors")


def wrong_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"kv_lora_rank": 64}))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (truncate, "truncated"),
        (another_programs, "lacks model.embed_tokens.weight"),
        (wrong_shape, "has shape"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_broken_model_folders(broken, break_it, words):
    break_it(broken)
    assert words in refused("chat", broken)
    assert words in refused("serve", broken, "--port", "0")


def test_a_broken_checkpoint_of_a_started_stage(tiny_run, tmp_path):
    out = shutil.copytree(tiny_run[0], tmp_path / "run")
    (out / "zero" / "kogia.json").unlink()
    (out / "zero" / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    assert "delete it to start the stage over" in refused(*run_tiny(out))


def test_two_runs_at_once_in_one_folder(tiny_run):
    import fcntl

    with open(tiny_run[0] / "run.json") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another `kogia run` is at work" in refused(*run_tiny(tiny_run[0]))


def test_a_full_disk_leaves_what_was_there(tiny_run, tmp_path):
    """A real file system of 3 MB, in a mount namespace of its own, that fills up in the middle of the run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", f"mount -t tmpfs -o size=3m none {disk}"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs util-linux's unshare and user namespaces, to mount a small disk")
    script = f'mount -t tmpfs -o size=3m none {disk} && "$@"; code=$?; ls -A {disk}/run/*; exit $code'
    command = [sys.executable, "-m", "kogia", *map(str, run_tiny(disk / "run"))]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: no space left") and "intact" in done.stderr
    assert "documents.jsonl" in done.stdout and "\n." not in done.stdout  # finished files stay, no half ones do

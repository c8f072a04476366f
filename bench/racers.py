"""Engines that race: each in a process of its own, which loads once and decodes when it is told to.

`Racer` starts one; `race` lets several decode the same prompts in turn; `report` prints what came out. What is timed
is the token loop alone, in the child: no HTTP, no tokenising, no loading. A lap has two parts: the prompt (until every
sequence has its first token) and the decoding of the rest.

llama.cpp is driven through its C API by the package llama-cpp-python (the loop of its own llama-batched-bench, with
the greedy choice added), or, where that is missing, as the server that xllamacpp packs. KOGIA_LLAMA_CPP names a folder
with a libllama.so of one's own.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MAX_BATCH = 16
Prompts = list[list[int]]


@dataclasses.dataclass
class Lap:
    """One lap of one racer: seconds of CPU and of the clock, and how many tokens they bought."""

    prompt_cpu: float
    prompt_wall: float
    prompt_tokens: int
    decode_cpu: float
    decode_wall: float
    decode_tokens: int
    replies: Prompts = dataclasses.field(repr=False)

    def speed(self, part: str, clock: str) -> float:
        """Tokens a second. part: prompt or decode; clock: cpu or wall."""
        return getattr(self, f"{part}_tokens") / getattr(self, f"{part}_{clock}")


Runner = Callable[[Prompts, int], Lap]


# in the child ---------------------------------------------------------------------------------------------------------


class Watch:
    """Seconds since the last look: of this process (user and system, all threads) and of the clock."""

    def __init__(self) -> None:
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        """(CPU, clock) since the last lap."""
        now, last = self._now(), self._last
        self._last = now
        return now[0] - last[0], now[1] - last[1]

    def _now(self) -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.perf_counter()


def total(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens these are."""
    return sum(map(len, prompts))


def build_engine(path: str, quantize: str | None, batch: int, threads: int) -> Any:
    """Kogia's engine: the one place that knows how it is made."""
    import kogia

    model = kogia.load_model(path, "float32" if quantize else "bfloat16")  # rounded once, as `kogia serve` does
    model.requires_grad_(False).eval()
    tokenizer = kogia.load_tokenizer(path)
    return kogia.Engine(model, tokenizer, max_batch=batch, quantize=quantize, draft="off", threads=threads)


def greedy(tokens: int) -> Any:
    """Kogia's request for exactly so many of the likeliest tokens."""
    from kogia.engine.request import SamplingParams

    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    return SamplingParams(tokens, temperature=0.0, **({"ignore_eos": True} if "ignore_eos" in fields else {}))


def kogia_runner(path: str, threads: int, quantize: str | None = None) -> tuple[Runner, str]:
    """Kogia's own engine."""
    import torch

    import kogia

    torch.set_num_threads(threads)
    engine = build_engine(path, quantize, MAX_BATCH, threads)

    def run(prompts: Prompts, tokens: int) -> Lap:
        watch = Watch()
        asked = [engine.add(prompt, greedy(tokens)) for prompt in prompts]
        outputs: dict[int, Any] = {}
        first: set[int] = set()
        before, part = 0, (0.0, 0.0)
        while len(outputs) < len(asked):
            for event in engine.step():
                first.add(event[0])
                before += 0 if part[1] else sampled(event)
                if event[-1]:
                    outputs[event[0]] = event[-1]
            if not part[1] and len(first) == len(asked):
                part = watch.lap()
        rest, replies = watch.lap(), [outputs[id].token_ids for id in asked]
        return Lap(*part, total(prompts), *rest, total(replies) - before, replies)

    return run, f"kogia {kogia.__version__}, {type(getattr(engine, 'runner', engine)).__name__}"


def sampled(event: Any) -> int:
    """How many tokens an engine's event brings."""
    return len(event.tokens) if hasattr(event, "tokens") else 1


def transformers_runner(path: str, threads: int, experts: str | None = None) -> tuple[Runner, str]:
    """`generate` of transformers in BF16. experts: how it multiplies experts (its own choice: None)."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    options = {"experts_implementation": experts} if experts else {}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, **options).eval()
    model.generation_config.eos_token_id = None

    def run(prompts: Prompts, tokens: int) -> Lap:
        rows = torch.tensor(prompts)
        laps: list[tuple[float, float]] = []

        def stamp(*_: Any, **__: Any) -> torch.Tensor:
            laps.append(watch.lap()) if not laps else None
            return torch.zeros(len(prompts), dtype=torch.bool)

        watch = Watch()
        found = model.generate(
            rows, attention_mask=torch.ones_like(rows), do_sample=False, max_new_tokens=tokens,
            stopping_criteria=[stamp], pad_token_id=0,
        )  # fmt: skip
        replies = found[:, rows.shape[1] :].tolist()
        return Lap(*laps[0], total(prompts), *watch.lap(), total(replies) - len(prompts), replies)

    return run, f"transformers {importlib.metadata.version('transformers')}"


class LlamaCpp:
    """A file in llama.cpp, through the C API: `decode` takes rows of tokens and gives logits."""

    def __init__(self, path: str, threads: int, flash: int = -1, micro: int = 512, repack: bool = True) -> None:
        """flash: attention (-1: its own choice, 0: plain, 1: flash); micro: rows that it computes at a time."""
        import llama_cpp

        self.api, self.threads, self.flash, self.micro = llama_cpp, threads, flash, micro
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        wanted = llama_cpp.llama_model_default_params()
        wanted.use_extra_bufts = repack
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), wanted)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self._contexts: dict[tuple[int, int], Any] = {}

    def context(self, sequences: int, length: int) -> Any:
        """An empty cache for so many sequences of so many tokens (kept for the next time)."""
        key = (sequences, length)
        if key not in self._contexts:
            p = self.api.llama_context_default_params()
            p.n_ctx, p.n_seq_max, p.n_batch = sequences * -(-length // 256) * 256, sequences, max(2048, sequences * 128)
            p.n_ubatch, p.n_threads, p.n_threads_batch = self.micro, self.threads, self.threads
            p.flash_attn_type, p.n_outputs_max_per_seq = self.flash, 0
            self._contexts[key] = self.api.llama_init_from_model(self.model, p)
        self.api.llama_memory_clear(self.api.llama_get_memory(self._contexts[key]), False)
        return self._contexts[key]

    def batch(self, rows: int) -> "Rows":
        """Room for so many rows of input."""
        return Rows(self.api.llama_batch_init(rows, 0, 1), rows)

    def decode(self, context: Any, rows: "Rows") -> Any:
        """(wanted rows, vocabulary) logits in FP32, valid until the next call."""
        import numpy as np

        code = self.api.llama_decode(context, rows.batch)
        if code:
            raise RuntimeError(f"llama_decode says {code}")
        return np.ctypeslib.as_array(self.api.llama_get_logits(context), (rows.wanted, self.vocab))


class Rows:
    """A llama_batch, its arrays seen by NumPy."""

    def __init__(self, batch: Any, rows: int) -> None:
        import numpy as np

        self.batch, self.wanted = batch, 0
        self._token, self._pos, self._logits = (
            np.ctypeslib.as_array(pointer, (rows,)) for pointer in (batch.token, batch.pos, batch.logits)
        )
        for row in range(rows):
            batch.n_seq_id[row] = 1

    def fill(self, tokens: Any, positions: Any, sequences: Sequence[int], wanted: Any) -> None:
        """Say what each row is. wanted: 1 where logits are."""
        count = len(sequences)
        self.batch.n_tokens = count
        self._token[:count], self._pos[:count], self._logits[:count] = tokens, positions, wanted
        for row, sequence in enumerate(sequences):
            self.batch.seq_id[row][0] = sequence
        self.wanted = int(self._logits[:count].sum())

    def next(self, tokens: Any) -> None:
        """The same sequences, one position on."""
        count = self.batch.n_tokens
        self._token[:count] = tokens
        self._pos[:count] += 1


def llama_runner(path: str, threads: int, **settings: Any) -> tuple[Runner, str]:
    """llama.cpp through its C API."""
    import numpy as np

    llama = LlamaCpp(path, threads, **settings)

    def run(prompts: Prompts, tokens: int) -> Lap:
        batch = len(prompts)
        context = llama.context(batch, max(map(len, prompts)) + tokens)
        prompt, step = llama.batch(total(prompts)), llama.batch(batch)
        watch = Watch()
        prompt.fill(
            [token for row in prompts for token in row], [at for row in prompts for at in range(len(row))],
            [number for number, row in enumerate(prompts) for _ in row],
            [int(at == len(row) - 1) for row in prompts for at in range(len(row))],
        )  # fmt: skip
        chosen = [llama.decode(context, prompt).argmax(1)]
        part = watch.lap()
        step.fill(chosen[0], [len(row) - 1 for row in prompts], range(batch), 1)
        for _ in range(tokens - 1):
            step.next(chosen[-1])
            chosen.append(llama.decode(context, step).argmax(1))
        rest, replies = watch.lap(), np.stack(chosen, 1).tolist()
        llama.api.llama_batch_free(prompt.batch)
        llama.api.llama_batch_free(step.batch)
        return Lap(*part, total(prompts), *rest, total(replies) - batch, replies)

    info = llama.api.llama_print_system_info().decode().replace(" = 1", "").strip(" |")
    return run, f"llama.cpp's C API in llama-cpp-python {importlib.metadata.version('llama-cpp-python')} ({info})"


def xllama_runner(path: str, threads: int, **_: Any) -> tuple[Runner, str]:
    """llama.cpp as the server in xllamacpp: its HTTP and its sampler are timed with it."""
    import urllib.request
    from concurrent.futures import ThreadPoolExecutor

    import xllamacpp

    servers: dict[int, Any] = {}

    def server(batch: int) -> Any:
        if batch not in servers:
            params = xllamacpp.CommonParams()
            params.model.path, params.n_ctx, params.n_parallel, params.port = path, 512 * batch, batch, 0
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
            params.cont_batching, params.verbosity = True, 1
            servers[batch] = xllamacpp.Server(params)
        return servers[batch]

    def post(address: str, prompt: list[int], tokens: int) -> list[int]:
        asked = dict(prompt=prompt, n_predict=tokens, temperature=0, ignore_eos=True, cache_prompt=False)
        body = json.dumps(asked | dict(return_tokens=True, n_probs=0)).encode()
        request = urllib.request.Request(address + "/completion", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["tokens"]

    def run(prompts: Prompts, tokens: int) -> Lap:
        address, batch = server(len(prompts)).listening_address, len(prompts)
        with ThreadPoolExecutor(batch) as pool:
            watch = Watch()
            list(pool.map(post, [address] * batch, prompts, [1] * batch))
            part = watch.lap()
            replies = list(pool.map(post, [address] * batch, prompts, [tokens] * batch))
            both = watch.lap()
        rest = (max(both[0] - part[0], 1e-9), max(both[1] - part[1], 1e-9))
        return Lap(*part, total(prompts), *rest, total(replies) - batch, replies)

    return run, f"llama.cpp's server in xllamacpp {importlib.metadata.version('xllamacpp')}"


RUNNERS = {"kogia": kogia_runner, "transformers": transformers_runner, "llama": llama_runner, "xllama": xllama_runner}


def child(side: str, path: str, options: dict[str, Any]) -> None:
    """Serve laps: a JSON line in, a JSON line out. Whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, info = RUNNERS[side](path, **options)
    print(json.dumps(info), file=answers, flush=True)
    for line in sys.stdin:
        lap = run(**json.loads(line))
        print(json.dumps(dataclasses.asdict(lap)), file=answers, flush=True)
    os._exit(0)  # a server's own farewell takes a second


# in the parent --------------------------------------------------------------------------------------------------------


class Racer:
    """An engine in a process of its own, which stays alive between laps."""

    def __init__(self, side: str, path: str | Path, threads: int, **options: Any) -> None:
        """Start it and wait until its model is loaded.

        Raises:
            RuntimeError: it cannot; the end of what it printed says why.
        """
        self.side = side
        alone = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
                 "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}  # fmt: skip
        if "KOGIA_LLAMA_CPP" in os.environ:
            alone["LLAMA_CPP_LIB_PATH"] = os.environ["KOGIA_LLAMA_CPP"]
        said = json.dumps({"threads": threads} | options)
        self._process = subprocess.Popen(
            [sys.executable, __file__, side, str(path), said], env=os.environ | alone, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.info: str = self._answer()

    def lap(self, prompts: Prompts, tokens: int) -> Lap:
        """Decode so many tokens after each prompt."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return Lap(**self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.side} ended: {self._process.communicate()[1][-2000:]}")
        return json.loads(line)


def llama_side() -> str | None:
    """Which llama.cpp there is."""
    found = [side for side, module in (("llama", "llama_cpp"), ("xllama", "xllamacpp")) if installed(module)]
    return found[0] if found else None


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def lined_up(entries: dict[str, tuple[str, str | Path, dict[str, Any]]], threads: int) -> Iterator[dict[str, Racer]]:
    """Racers by name, started one after the other. One that cannot start is named and left out."""
    racers: dict[str, Racer] = {}
    try:
        for name, (side, path, options) in entries.items():
            try:
                racers[name] = Racer(side, path, threads, **options)
                print(f"{name}: {racers[name].info}", flush=True)
            except RuntimeError as error:
                print(f"{name} is left out: {str(error).strip().splitlines()[-1]}", flush=True)
        yield racers
    finally:
        for racer in racers.values():
            racer.close()


def race(racers: dict[str, Racer], prompts: Callable[[int], Prompts], tokens: int, rounds: int) -> dict[str, list[Lap]]:
    """`rounds` laps of each, in turn, after one to warm up. prompts(round): what all decode in that round (new ones
    each time, so that no cache of prefixes helps)."""
    laps: dict[str, list[Lap]] = {name: [] for name in racers}
    for number in range(rounds + 1):
        asked = prompts(number)
        for name in list(racers)[:: 1 if number % 2 else -1]:
            lap = racers[name].lap(asked, tokens)
            if any(len(reply) != tokens for reply in lap.replies):
                raise RuntimeError(f"{name} answered with {[len(r) for r in lap.replies]} tokens and not {tokens}")
            laps[name] += [lap] if number else []
    return laps


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def report(title: str, laps: dict[str, list[Lap]], clock: str) -> None:
    """The table of one race: tokens a second of decoding and of the prompt, and how many first tokens are those of the
    first racer, which tells that all had the same weights and prompts."""
    print(f"\n{title}\n  {'':24}{'decode, tok/s':>28}{'prompt, tok/s':>28}{'same first token':>20}")
    base = next(iter(laps.values()))
    for name, found in laps.items():
        decode, prompt = (spread([lap.speed(part, clock) for lap in found]) for part in ("decode", "prompt"))
        both = [
            (a[0], b[0]) for x, y in zip(found, base, strict=True) for a, b in zip(x.replies, y.replies, strict=True)
        ]
        same = f"{sum(a == b for a, b in both)} of {len(both)}"
        print(f"  {name:24}{decode:>28}{prompt:>28}{same:>20}", flush=True)


def ratios(name: str, laps: dict[str, list[Lap]], pairs: Sequence[tuple[str, str]], clock: str) -> list[str]:
    """Last lines, "ratio NAME VALUE": medians of ours over theirs, for decoding and for prompts."""
    lines = []
    for ours, theirs in pairs:
        if ours not in laps or theirs not in laps:
            continue
        for part in ("decode", "prompt"):
            mine, other = (statistics.median(lap.speed(part, clock) for lap in laps[side]) for side in (ours, theirs))
            words = "_".join((name, part, ours.split()[-1], "against", *theirs.split()))
            lines.append(f"ratio {words} {mine / other:.2f}")
    return lines


def options(about: str) -> argparse.ArgumentParser:
    """The options of every race."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="laps of each racer that count (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="1: CPU time; more: time of the clock (default 1)")
    parser.add_argument("--quick", action="store_true", help="one round of few tokens: to see that it runs")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="sequences at once")
    parser.add_argument("--only", nargs="+", default=[], metavar="RACER", help="racers whose names hold these words")
    return parser


def run_races(
    name: str,
    entries: dict[str, tuple[str, str | Path, dict[str, Any]]],
    prompts: Callable[[int, int], Prompts],
    tokens: int,
    pairs: Sequence[tuple[str, str]],
    asked: argparse.Namespace,
) -> None:
    """Race at every batch size and print. prompts(batch, round); pairs: names whose ratio is wanted."""
    clock = "cpu" if asked.threads == 1 else "wall"
    rounds, tokens = (1, min(tokens, 16)) if asked.quick else (asked.rounds, tokens)
    chosen = {key: entry for key, entry in entries.items() if not asked.only or any(w in key for w in asked.only)}
    print(f"{asked.threads} thread(s), {'CPU time' if clock == 'cpu' else 'wall time'}, {rounds} rounds, load "
          f"{os.getloadavg()[0]:.2f}; torch {importlib.metadata.version('torch')}")  # fmt: skip
    lines: list[str] = []
    with lined_up(chosen, asked.threads) as racers:
        for batch in asked.batches:
            laps = race(racers, lambda number, batch=batch: prompts(batch, number), tokens, rounds)
            report(f"batch {batch}, {tokens} new tokens each, median (range)", laps, clock)
            lines += ratios(f"{name}_{batch}", laps, pairs, clock)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:]:
        child(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    else:
        print(__doc__)  # `make bench` runs every file here

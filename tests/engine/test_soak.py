"""Hours in a minute: random load on a tiny model in too small a cache, and nothing is lost, leaked or said differently.

KOGIA_SOAK_SECONDS says how long (60). Requests come and go as they like: aborted ones, priorities, tenants, several
replies to a prompt, streams, stop strings, grammars, penalties, shared beginnings, drafts by MTP layers and by lookup;
the engine is paused, and the weights change under its feet. Memory is VmRSS of /proc, read twice a second: from the end
of a warm-up of a third of the time to the end it may grow by MOST_GROWTH (slope of a line by least squares, times the
time), whatever SECONDS is. Python's objects are counted whenever nothing runs.
"""

import gc
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kogia.engine.engine import Engine
from kogia.engine.grammar import Constraint
from kogia.engine.request import Output, SamplingParams
from kogia.engine.speculate import Constant, LookupDrafter, make_drafter
from kogia.errors import QueueFullError

from .conftest import facts

SECONDS = float(os.environ.get("KOGIA_SOAK_SECONDS", 60))
STATUS = Path("/proc/self/status")
MOST_GROWTH = 4.0  # MB over the time after the warm-up; a leak of 1 KB a request would be some 10 MB in 40 s
BURST = 5.0  # seconds of load between two idle moments
CONTEXT, CACHE, BATCH, WAITING = 96, 208, 6, 12  # tokens, tokens, sequences, sequences
GRAMMARS = [
    Constraint("choice", ["yes", "no", "perhaps"]),
    Constraint("regex", "[a-f]{3,9}"),
    Constraint("json_schema", {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}),
]
MORE = [
    {}, {}, {}, {"top_k": 7}, {"min_p": 0.02, "top_p": 0.9}, {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"repetition_penalty": 1.3}, {"logit_bias": {9: 4.0, 10: -100.0}}, {"stop": ("a", "e", " t")}, {"top_logprobs": 3},
    {"stop_token_ids": (20, 21, 22)}, {"ignore_eos": True}, *({"constraint": grammar} for grammar in GRAMMARS),
]  # fmt: skip
PHASES = [  # a burst is of one of these: how often something comes, how often it goes
    {"arrivals": 0.9, "aborts": 0.02},
    {"arrivals": 0.5, "aborts": 0.2},
    {"arrivals": 0.1, "aborts": 0.02},
]


def make_engine(model, tokenizer, draft, **settings) -> Engine:
    """The one place that knows how an engine is made."""
    return Engine(model, tokenizer, max_length=CONTEXT, draft=draft, threads=1, **settings)


def draw_request(rng: random.Random) -> tuple[list[int], SamplingParams]:
    """A prompt, often with a beginning that others have, and what is asked."""
    family, length = rng.randrange(4), rng.choice([1, 7, 15, 16, 17, 32, 33, 48, 60])
    prompt = [(7 * family + 3 * i) % 390 + 6 for i in range(length)]
    prompt += [rng.randrange(6, 396) for _ in range(rng.choice([0, 0, 3, 20]))]
    n = rng.choice([1, 1, 1, 1, 2, 3])
    sampled = dict(temperature=rng.choice([0.0, 0.7, 1.0]), seed=rng.randrange(2**40), n=n)
    return prompt, SamplingParams(rng.choice([1, 4, 12, 40]), **sampled, **rng.choice(MORE))


class Load:
    """Comes and goes on an engine by chance, and keeps the books."""

    def __init__(self, model, tokenizer, seed: int) -> None:
        self.model, self.rng = model, random.Random(seed)
        self.engine = make_engine(
            model, tokenizer, "auto", max_batch=BATCH, max_batch_tokens=48, cache_tokens=CACHE, max_waiting=WAITING
        )
        lookup = LookupDrafter(Constant(4))
        self.drafters = [self.engine.drafter, make_drafter(self.engine.runner, 2), lookup, None]
        self.alone = make_engine(model, tokenizer, "off", max_batch=1, prefix_cache=False)
        first = [p.detach().clone() for p in model.parameters()]
        generator = torch.Generator().manual_seed(seed)
        second = [p * (1 + 0.2 * torch.randn(p.shape, generator=generator)).to(p.dtype) for p in first]
        self.weights = (first, second)
        self.asked = {}  # request in flight -> (prompt, params, weight version)
        self.streamed = {}  # (request, reply) -> text so far, of those that stream
        self.got = {}  # request in flight -> its finished replies
        self.to_compare = []
        self.added = self.finished = self.aborted = self.refused = self.compared = self.steps = self.refreshes = 0

    def burst(self, seconds: float) -> None:
        """Load for so long, then whatever is left runs to its end."""
        self.engine.drafter = self.rng.choice(self.drafters)
        phase, end = self.rng.choice(PHASES), time.monotonic() + seconds
        while time.monotonic() < end:
            while self.rng.random() < phase["arrivals"]:
                if not self.arrive():
                    break
            if self.asked and self.rng.random() < phase["aborts"]:
                self.leave()
            if self.rng.random() < 0.005:
                self.stand_still()
            if self.rng.random() < 0.002:
                self.change_weights()
            self.step()
        while self.engine.busy:
            self.step()

    def arrive(self) -> bool:
        """One more request; whether there was room in the line."""
        prompt, params = draw_request(self.rng)
        salt, stream = self.rng.choice(["", "", "other"]), self.rng.random() < 0.3
        try:
            id = self.engine.add(prompt, params, priority=self.rng.randrange(3), salt=salt, stream=stream)
        except QueueFullError:
            self.refused += 1
            return False
        self.added += 1
        self.asked[id], self.got[id] = (prompt, params, self.engine.weight_version), []
        if stream:
            self.streamed |= {(id, index): "" for index in range(params.n)}
        return True

    def leave(self) -> None:
        """Somebody goes away."""
        id = self.rng.choice(list(self.asked))
        self.engine.abort(id)
        self.aborted += 1
        self.forget(id)

    def forget(self, id: int) -> None:
        del self.asked[id], self.got[id]
        for key in [key for key in self.streamed if key[0] == id]:
            del self.streamed[key]

    def stand_still(self) -> None:
        self.engine.pause()
        assert not self.engine.busy and self.engine.step() == []
        if self.asked and self.rng.random() < 0.5:
            self.leave()
        self.engine.resume()

    def change_weights(self) -> None:
        """Other weights, between two steps; what is in flight goes on under them."""
        self.compare()
        self.refreshes += 1
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), self.weights[self.refreshes % 2], strict=True):
                parameter.copy_(value)
        self.engine.refresh()
        self.alone.refresh()

    def step(self) -> None:
        for event in self.engine.step():
            assert event.id in self.asked, "an event of a request that is not there"
            if (event.id, event.index) in self.streamed:
                self.streamed[event.id, event.index] += event.text
            if event.output:
                self.take(event.output)
        self.steps += 1
        if self.steps % 64 == 0:
            self.engine._scheduler.check()

    def take(self, output: Output) -> None:
        """A finished reply, perhaps the last of its request."""
        prompt, params, version = self.asked[output.id]
        assert output.finish_reason in ("stop", "length"), output.error
        assert 0 < len(output.token_ids) <= params.max_tokens
        if (output.id, output.index) in self.streamed:
            assert self.streamed[output.id, output.index] == output.text
        assert not any(stop in output.text for stop in params.stop)
        self.got[output.id].append(facts(output))
        if len(self.got[output.id]) == params.n:
            if version == self.engine.weight_version and self.rng.random() < 0.05:
                self.to_compare.append((prompt, params, sorted(self.got[output.id], key=lambda f: f[0])))
            self.finished += 1
            self.forget(output.id)
        if len(self.to_compare) >= 8:
            self.compare()

    def compare(self) -> None:
        """Each of the sample says what it says alone."""
        for prompt, params, found in self.to_compare:
            assert found == [facts(output) for output in self.alone.generate([prompt], [params])], (prompt, params)
            self.compared += 1
        self.to_compare.clear()

    def check_idle(self) -> None:
        """Nothing runs: nothing is lost, and nobody is forgotten."""
        scheduler = self.engine._scheduler
        scheduler.check()
        assert scheduler.pool.available == scheduler.pool.total
        assert not scheduler._reading and not scheduler.waiting and not scheduler.rows.count
        assert not self.asked and self.added == self.finished + self.aborted
        assert scheduler.rows.odd == 0 and not scheduler.rows.tables_RP.any()


class Memory:
    """Resident megabytes over time, and how many of the program's objects there are at idle moments."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.readings: list[tuple[float, float]] = []
        self.objects: list[int] = []

    def read(self) -> None:
        """At most twice a second."""
        now = time.monotonic()
        if now - self.last >= 0.5:
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
            self.readings.append((now - self.start, int(line.split()[1]) / 1024))
            self.last = now

    def count(self) -> None:
        gc.collect()
        self.objects.append(len(gc.get_objects()))

    def growth(self) -> float:
        """Megabytes by which memory grows from the end of the warm-up to the end, by least squares."""
        warm = [(t, mb) for t, mb in self.readings if t > SECONDS / 3]
        slope = np.polyfit(*np.array(warm).T, 1)[0]
        return float(slope * (warm[-1][0] - warm[0][0]))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc, which is not here")
def test_a_long_day(make_model, tiny_tokenizer):
    pytest.importorskip("llguidance")
    changes = dict(vocab_size=tiny_tokenizer.vocab_size, initializer_range=0.2, num_nextn_predict_layers=2)
    model = make_model(21, **changes, max_position_embeddings=CONTEXT).compute_in(torch.bfloat16).requires_grad_(False)
    load, memory = Load(model, tiny_tokenizer, seed=1), Memory()
    step = load.step

    def step_and_read() -> None:
        step()
        memory.read()

    load.step = step_and_read
    while time.monotonic() - memory.start < SECONDS:
        load.burst(min(BURST, SECONDS / 8))
        load.check_idle()
        memory.count()
    load.compare()
    stats = load.engine.stats()
    print(
        f"{load.added} requests, {load.finished} finished, {load.aborted} aborted, {load.refused} refused, "
        f"{load.compared} compared with a run alone, {load.refreshes} changes of weights, {load.steps} steps, {stats}; "
        f"memory {memory.readings[0][1]:.1f} to {memory.readings[-1][1]:.1f} MB, growth after the warm-up "
        f"{memory.growth():.2f} MB; over time {[round(mb, 1) for _, mb in memory.readings[::20]]}; "
        f"objects {memory.objects}"
    )
    assert load.finished > 100 and load.aborted > 10 and load.compared > 5 and load.refreshes > 1
    assert stats["num_preemptions"] > 10 and stats["prefix_cache_hits"] > 1000 and stats["accepted_tokens"] > 10
    assert memory.growth() < MOST_GROWTH
    assert memory.objects[-1] - memory.objects[len(memory.objects) // 3] < 2000

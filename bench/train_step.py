"""One training step of the nano preset: Kogia against transformers' DeepseekV3ForCausalLM.

The same weights, the same batch of 16 rows of 128 tokens, BF16 products with FP32 weights, the same AdamW, one
thread, process CPU time, rounds interleaved. transformers trains the main model without the MTP layers, so Kogia
does too here. The last line is the ratio of medians (over 1: Kogia is faster).
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from kogia.kernels.host import keep_freed_memory
from kogia.models.decoder import Decoder
from kogia.models.folder import save_model
from kogia.models.presets import preset
from kogia.train.loop import train_on_batch

ROUNDS, STEPS, ROWS, LENGTH = 7, 4, 16, 128


def ours(model: Decoder, batches: list[torch.Tensor]) -> None:
    """Steps of Kogia's own loop."""
    for batch in batches:
        train_on_batch(model, batch, batch, ROWS, 0.3, 0.0)
        ours_optimizer.step()
        ours_optimizer.zero_grad(set_to_none=True)


def theirs(model: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    """Steps of a plain loop around transformers' model."""
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        theirs_optimizer.step()
        theirs_optimizer.zero_grad(set_to_none=True)


def cpu_seconds(work: Callable[[], None]) -> float:
    """Process CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


torch.set_num_threads(1)
keep_freed_memory()
config = dataclasses.replace(preset("nano"), num_nextn_predict_layers=0)
own = Decoder(config).initialise(0).train().compute_in(torch.bfloat16)
with tempfile.TemporaryDirectory() as folder:
    save_model(Path(folder), own)
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
ours_optimizer = torch.optim.AdamW(own.parameters(), lr=1e-3, fused=True)
theirs_optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3, fused=True)
generator = torch.Generator().manual_seed(0)
batches = [torch.randint(0, config.vocab_size, (ROWS, LENGTH + 1), generator=generator) for _ in range(STEPS)]
ours(own, batches), theirs(other, batches)  # warm up
times: dict[str, list[float]] = {"kogia": [], "transformers": []}
for _ in range(ROUNDS):
    times["kogia"].append(cpu_seconds(lambda: ours(own, batches)))
    times["transformers"].append(cpu_seconds(lambda: theirs(other, batches)))
for name, seconds in times.items():
    speeds = sorted(STEPS * ROWS * LENGTH / s for s in seconds)
    print(f"{name}: {statistics.median(speeds):,.0f} tokens a CPU-second ({speeds[0]:,.0f} to {speeds[-1]:,.0f})")
print(f"ratio train_step {statistics.median(times['transformers']) / statistics.median(times['kogia']):.2f}")

"""The disk tier: what memory gives up comes back bit for bit, and nothing that is damaged, foreign or stale does."""

import pytest
import torch

from kogia.engine.disk import DiskTier
from kogia.engine.engine import Engine
from kogia.engine.request import SamplingParams
from kogia.engine.torch_runner import TorchRunner
from kogia.errors import EngineError

LIKE = torch.zeros(2, 16, 8, dtype=torch.bfloat16)


def block(i: int) -> torch.Tensor:
    return torch.full_like(LIKE, i)


def digest(i: int) -> bytes:
    return bytes([i]) * 32


def test_what_is_put_can_be_got_also_by_the_next_process(tmp_path):
    DiskTier(tmp_path, 1 << 20).put(digest(1), block(1))
    tier = DiskTier(tmp_path, 1 << 20)
    assert tier.size == next(tmp_path.iterdir()).stat().st_size
    assert torch.equal(tier.get(digest(1), LIKE), block(1)) and tier.hits == 1
    assert tier.get(digest(2), LIKE) is None


def test_the_least_recently_used_go_when_it_is_full(tmp_path):
    probe = DiskTier(tmp_path / "probe", 1 << 20)
    probe.put(digest(0), block(0))
    tier = DiskTier(tmp_path / "tier", 3 * probe.size)
    for i in range(3):
        tier.put(digest(i), block(i))
    tier.get(digest(0), LIKE)
    tier.put(digest(3), block(3))
    assert [digest(i) in tier for i in range(4)] == [True, False, True, True]
    assert len(list((tmp_path / "tier").iterdir())) == 3 and tier.size <= tier.limit_bytes


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    "damage", [flip, lambda d: d[:-5], lambda d: b"", lambda d: b"nonsense" * 40, lambda d: d + b"\0" * 9000],
    ids=["a bit", "cut", "empty", "foreign", "huge"],
)  # fmt: skip
def test_a_damaged_file_is_a_miss(tmp_path, damage):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(digest(1), block(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert tier.get(digest(1), LIKE) is None
    assert digest(1) not in tier and not path.exists()


@pytest.mark.parametrize("like", [LIKE.float(), LIKE[:1]], ids=["dtype", "shape"])
def test_a_block_of_another_kind_is_a_miss(tmp_path, like):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(digest(1), block(1))
    assert tier.get(digest(1), like) is None


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    tier = DiskTier(tmp_path / "file", 1 << 20)
    tier.put(digest(1), block(1))
    assert tier.get(digest(1), LIKE) is None


def prompt(i: int) -> list[int]:
    return [(11 * i + 3 * j) % 390 + 6 for j in range(50)]


def make(exact_runner, tokenizer, folder, model=None) -> Engine:
    own, make_runner = exact_runner
    return Engine(
        model or own, tokenizer, cache_tokens=64, runner=make_runner(model or own), disk=DiskTier(folder, 1 << 20)
    )


def test_evicted_blocks_come_back_from_the_disk(exact_runner, tiny_tokenizer, oracle, tmp_path):
    engine, params = make(exact_runner, tiny_tokenizer, tmp_path), SamplingParams(5, seed=1)
    for i in (0, 1, 0, 2, 0):
        output = engine.generate([prompt(i)], [params])[0]
        assert (output.token_ids, output.logprobs) == oracle.answers(prompt(i), params)[0][1:3]
        engine._scheduler.check()
    assert engine.disk.hits >= 6 and output.cached_tokens == 48
    again = make(exact_runner, tiny_tokenizer, tmp_path).generate([prompt(0)], [params])[0]
    assert again.cached_tokens > 0 and again.token_ids == output.token_ids


def test_other_weights_find_nothing_there(exact_runner, tiny_tokenizer, make_model, tmp_path):
    params = SamplingParams(1)
    first = make(exact_runner, tiny_tokenizer, tmp_path)
    first.generate([prompt(0)], [params])
    first.generate([prompt(1)], [params])
    assert make(exact_runner, tiny_tokenizer, tmp_path).generate([prompt(0)], [params])[0].cached_tokens > 0
    other = make_model(12, vocab_size=400, max_position_embeddings=64).compute_in(exact_runner[0].dtype)
    assert make(exact_runner, tiny_tokenizer, tmp_path, other).generate([prompt(0)], [params])[0].cached_tokens == 0
    first.refresh()
    assert first.generate([prompt(0)], [params])[0].cached_tokens == 0


def test_a_runner_that_cannot_hand_out_blocks_is_refused(exact_runner, tiny_tokenizer, tmp_path):
    class Closed:
        exact, block_bytes, config = True, 1, exact_runner[0].config

    with pytest.raises(EngineError, match="Closed cannot hand out blocks"):
        Engine(exact_runner[0], tiny_tokenizer, runner=Closed(), disk=DiskTier(tmp_path, 1))


def test_torch_runner_can(exact_runner):
    runner = TorchRunner(exact_runner[0], one_by_one=False)
    runner.allocate(3)
    runner.write_block(1, torch.ones_like(runner.read_block(0)))
    runner.copy_block(1, 2)
    assert runner.read_block(2).eq(1).all() and runner.read_block(0).eq(0).all()

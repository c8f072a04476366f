"""GRPO at work: log-probabilities, micro-batches, and learning to get a reward."""

import json
from types import SimpleNamespace

import pytest
import torch

from kogia.data.conversations import pad_batch
from kogia.engine.engine import Engine
from kogia.engine.request import Output, SamplingParams
from kogia.plan.bill import BillEntry
from kogia.reason import grpo
from kogia.reason.advantages import group_advantages
from kogia.reason.grpo import reinforce, reply_logprobs, sample_groups, update
from kogia.reason.losses import grpo_loss, token_weights
from kogia.reason.rewards import Reward
from kogia.tasks.problems import Problem, draw
from kogia.text.prompts import encode_question
from kogia.train.loop import Job
from kogia.train.meter import Meter, Silent, read_rows

VOCABULARY = 400


@pytest.fixture
def model(make_model):
    return make_model(21, vocab_size=VOCABULARY, initializer_range=0.1, num_nextn_predict_layers=1).train()


@pytest.fixture
def outputs(model, tiny_tokenizer) -> list[Output]:
    """Eight answers of different lengths to four prompts of different lengths, sampled from the model itself."""
    prompts = [[(i * 5 + j) % 300 + 6 for j in range(2 + 3 * i)] for i in range(4) for _ in range(2)]
    params = [SamplingParams(3 + 2 * i, 1.0, seed=i) for i in range(8)]
    return Engine(model, tiny_tokenizer).generate(prompts, params)


ADVANTAGES = torch.tensor([0.5, -0.5, 1.5, -1.0, 0.0, 0.0, 0.25, -2.0])


def settings(**changes):
    values = SimpleNamespace(micro_rows=8, temperature=1.0, normalise="sequence", clip_low=0.2, clip_high=0.28)
    vars(values).update(changes)
    return values


def padded(outputs, pad=1):
    return pad_batch([o.prompt for o in outputs], [o.token_ids for o in outputs], pad)


# log-probabilities ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_reply_logprobs_are_a_log_softmax(model, outputs, temperature):
    tokens, labels = padded(outputs)
    found = reply_logprobs(model, tokens, labels, temperature)
    assert found.shape == (8, tokens.shape[1] - 1)
    for row, o in zip(found, outputs, strict=True):
        whole = torch.tensor([[*o.prompt, *o.token_ids]])
        logp = torch.log_softmax(model(whole)[0] / temperature, -1)
        start, end = len(o.prompt) - 1, whole.shape[1] - 1
        expected = torch.stack([logp[t, whole[0, t + 1]] for t in range(start, end)])
        torch.testing.assert_close(row[start:end], expected, rtol=0, atol=1e-5)
        assert not row[:start].any() and not row[end:].any()


@torch.no_grad()
def test_padding_changes_nothing(model, outputs):
    together = reply_logprobs(model, *padded(outputs), 1.0)
    assert torch.equal(together, reply_logprobs(model, *padded(outputs, pad=77), 1.0))
    for i, o in enumerate(outputs):
        alone = reply_logprobs(model, *padded([o]), 1.0)[0]
        torch.testing.assert_close(together[i, : len(alone)], alone[: together.shape[1]], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampler_and_trainer_agree(model, tiny_tokenizer, outputs, temperature):
    engine = Engine(model, tiny_tokenizer)
    again = engine.generate([o.prompt for o in outputs], [SamplingParams(20, temperature, seed=i) for i in range(8)])
    tokens, labels = padded(again)
    trainer = reply_logprobs(model, tokens, labels, temperature)[labels[:, 1:] >= 0]
    sampler = torch.tensor([x for o in again for x in o.logprobs])
    torch.testing.assert_close(trainer, sampler, rtol=0, atol=1e-4)


# gradients -----------------------------------------------------------------------------------------------------------


def gradients(model, outputs, advantages, **changes) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    model.zero_grad(set_to_none=True)
    tokens = sum(len(o.token_ids) for o in outputs)
    sums = update(model, outputs, advantages, settings(**changes), 1, tokens, len(outputs))
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found, sums


def perturbed(outputs) -> list[Output]:
    """The same answers from a sampler that thought a little differently, so that clipping has something to do."""
    generator = torch.Generator().manual_seed(0)
    return [
        Output(o.id, o.token_ids, [x + d for x, d in zip(o.logprobs, noise, strict=True)], "length", prompt=o.prompt)
        for o in outputs
        for noise in [(0.4 * torch.randn(len(o.logprobs), generator=generator)).tolist()]
    ]


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_micro_batches_change_nothing(model, outputs, normalise):
    outputs = perturbed(outputs)
    whole, sums = gradients(model, outputs, ADVANTAGES, micro_rows=8, normalise=normalise)
    assert sums["clipped"] > 3
    for micro_rows in (1, 3):
        parts, other = gradients(model, outputs, ADVANTAGES, micro_rows=micro_rows, normalise=normalise)
        assert parts.keys() == whole.keys() and other == pytest.approx(sums, rel=1e-4)
        for name, expected in whole.items():
            assert (parts[name] - expected).norm() <= 1e-6 * expected.norm() + 1e-9, name


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_update_is_the_objective_over_the_whole_batch(model, outputs, normalise):
    """Against one plain loss over everything, answers without advantage included."""
    outputs = perturbed(outputs)
    found, sums = gradients(model, outputs, ADVANTAGES, micro_rows=3, normalise=normalise)
    model.zero_grad(set_to_none=True)
    tokens, labels = padded(outputs)
    mask = labels[:, 1:] >= 0
    old = torch.zeros(mask.shape)
    for row, o in enumerate(outputs):
        old[row, len(o.prompt) - 1 : len(o.prompt) - 1 + len(o.token_ids)] = torch.tensor(o.logprobs)
    weights = token_weights(mask, normalise, 8, int(mask.sum()))
    part = grpo_loss(reply_logprobs(model, tokens, labels, 1.0), old, ADVANTAGES, weights, 0.2, 0.28)
    part.loss.backward()
    assert sums["clipped"] == part.clipped.item()
    assert sums["tokens"] == sum(len(o.token_ids) for o, a in zip(outputs, ADVANTAGES, strict=True) if a != 0)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_on_policy_nothing_is_clipped_and_nothing_mismatches(model, outputs):
    _, sums = gradients(model, outputs, ADVANTAGES)
    assert sums["clipped"] == 0 and sums["mismatch"] / sums["tokens"] < 1e-5


def test_answers_without_advantage_have_no_gradient(model, outputs):
    found, sums = gradients(model, outputs, torch.zeros(8))
    assert found == {} and sums == {"clipped": 0.0, "mismatch": 0.0, "tokens": 0.0, "trained": 0.0}


def test_the_gradient_makes_good_answers_likelier_and_bad_ones_less(model, outputs):
    def logp() -> torch.Tensor:
        with torch.no_grad():
            return reply_logprobs(model, *padded(outputs), 1.0).sum(1)

    before = logp()
    found, _ = gradients(model, outputs, ADVANTAGES)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in found:
                p -= 1e-3 * found[name]
    gain = (logp() - before) / torch.tensor([len(o.token_ids) for o in outputs])
    assert float((gain * ADVANTAGES).sum()) > 0.0


# the loop ------------------------------------------------------------------------------------------------------------


def problems(step: int) -> list[Problem]:
    return draw({"chain_sum": 1.0}, 2, step, False, {"en": 1.0})


def test_groups_come_in_the_order_of_the_problems(model, tiny_tokenizer):
    engine = Engine(model, tiny_tokenizer)
    found, rewards = sample_groups(engine, problems(0), 3, 4, 1.0, seed=5)
    expected = [tuple(encode_question(tiny_tokenizer, p.question)) for p in problems(0) for _ in range(3)]
    assert [o.prompt for o in found] == expected and len(rewards) == 6
    assert len({tuple(o.token_ids) for o in found}) > 3
    again, _ = sample_groups(engine, problems(0), 3, 4, 1.0, seed=5)
    assert [o.token_ids for o in again] == [o.token_ids for o in found]


def loop_settings(**changes):
    values = SimpleNamespace(
        steps=2, group_size=8, mini_batches=1, micro_rows=16, max_tokens=2, temperature=1.0, learning_rate=3e-3,
        warmup=0, clip=1.0, clip_low=0.2, clip_high=0.2, divide_by_std=True, normalise="sequence",
        reward={"accuracy": 1.0}, optimizer="adamw",
    )  # fmt: skip
    vars(values).update(changes)
    return values


def job(model, folder, **changes) -> Job:
    return Job(
        model, folder, Meter(folder / "metrics.jsonl", BillEntry("rl", "cpu", 0.0, "USD"), 9, Silent()), **changes
    )


def even_first(_, output: Output) -> Reward:
    """A reward that a policy can learn in a few steps: begin with an even token."""
    return Reward(float(output.token_ids[0] % 2 == 0), 0.0, 0.0)


def test_reinforcement_raises_the_reward(model, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "reward", even_first)
    engine = Engine(model, tiny_tokenizer)
    reinforce(job(model, tmp_path), engine, problems, loop_settings(steps=40, learning_rate=1e-2), seed=1)
    rows = read_rows(tmp_path / "metrics.jsonl")
    accuracy = [row["accuracy"] for row in rows]
    assert len(rows) == 40
    assert sum(accuracy[:3]) / 3 < 0.75
    assert sum(accuracy[-5:]) / 5 > 0.85
    assert max(row["mismatch"] for row in rows) < 1e-4  # the engine samples with the weights being trained
    assert max(row["clip_fraction"] for row in rows) == 0.0  # one optimiser step a batch: always on policy


def test_several_steps_a_batch_go_off_policy_and_are_clipped(model, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "reward", even_first)
    engine = Engine(model, tiny_tokenizer)
    reinforce(job(model, tmp_path), engine, problems, loop_settings(mini_batches=2, learning_rate=3e-2), seed=1)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[0]["mismatch"] > 1e-3 and rows[0]["clip_fraction"] > 0.0


def test_equal_rewards_change_no_weight(model, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "reward", lambda *_: Reward(1.0, 1.0, 1.0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reinforce(job(model, tmp_path), Engine(model, tiny_tokenizer), problems, loop_settings(), seed=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["informative_groups"] == 0.0


def test_rows_of_the_metrics_file(model, tiny_tokenizer, tmp_path):
    reinforce(job(model, tmp_path), Engine(model, tiny_tokenizer), problems, loop_settings(), seed=1)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    assert len(lines) == 2 and row["step"] == 1
    assert {"reward", "accuracy", "format", "language", "length", "entropy", "mismatch", "clip_fraction"} <= row.keys()
    assert row["tokens"] == row["length"] * 16 and 0.0 < row["entropy"] < 7.0
    assert [s["question"] for s in row["samples"]] == [p.question for p in problems(0)]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(make_model, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "reward", even_first)

    def run(folder, steps_before_kill: int | None):
        model = make_model(21, vocab_size=VOCABULARY).train()
        work = job(model, folder, checkpoint_seconds=0.0)

        def draw_or_die(step: int) -> list[Problem]:
            if step == steps_before_kill:
                raise KeyboardInterrupt
            return problems(step)

        reinforce(work, Engine(model, tiny_tokenizer), draw_or_die, loop_settings(steps=4, mini_batches=2), seed=1)
        return model.state_dict()

    straight = run(tmp_path / "straight", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 2)
    resumed = run(tmp_path / "killed", None)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    kept = [row["accuracy"] for row in read_rows(tmp_path / "killed" / "metrics.jsonl")]
    assert kept == [row["accuracy"] for row in read_rows(tmp_path / "straight" / "metrics.jsonl")]


def test_advantages_reach_the_right_answers(model, outputs):
    """A group's advantages are for its own answers: only the last group learns here."""
    totals = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    advantages = group_advantages(totals).flatten()
    assert advantages.nonzero().flatten().tolist() == [6, 7]
    _, sums = gradients(model, outputs, advantages)
    assert sums["tokens"] == len(outputs[6].token_ids) + len(outputs[7].token_ids)

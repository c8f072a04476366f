"""The same advantages, losses and gradients as TRL's GRPOTrainer, which trains the very folder that Kogia wrote."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from kogia.data.conversations import pad_batch
from kogia.models.folder import load_model, save_model
from kogia.models.names import select, stored_tensors
from kogia.reason.advantages import group_advantages
from kogia.reason.grpo import reply_logprobs
from kogia.reason.losses import grpo_loss, token_weights

pytest.importorskip("trl", "1.10", reason="oracle missing: pip install 'trl>=1.10'")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def folder(make_model, tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = make_model(71, vocab_size=400, initializer_range=0.1, num_nextn_predict_layers=0)
    save_model(folder, model)
    tiny_tokenizer.save(folder)
    return folder


@pytest.fixture
def trainer(folder, tmp_path):
    """trainer(rewards, **settings): a real GRPOTrainer on the CPU, on the folder's model."""
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    transformers.logging.set_verbosity_error()

    def make(rewards: list[float], **settings):
        config = GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=len(rewards), num_generations=4,
            max_completion_length=3, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, **settings,
        )  # fmt: skip
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        made = GRPOTrainer(
            model=model, args=config, train_dataset=Dataset.from_dict({"prompt": ["3 + 4?", "가나다"]}),
            reward_funcs=lambda completions, **_: rewards[: len(completions)],
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
        made.model.train()
        made.current_gradient_accumulation_steps = 1
        return made

    return make


REWARDS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.5, 0.5, 2.0, 1.1]


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages(trainer, scale):
    """Their whole path: sample, reward, compare within the group."""
    rewards = [*REWARDS, 0.5, 0.5, 0.5, 0.5]
    made = trainer(rewards, scale_rewards=scale)
    scored = made._generate_and_score_completions([{"prompt": f"{i // 4} + 4?"} for i in range(16)])
    mine = group_advantages(torch.tensor(rewards).view(4, 4), divide_by_std=scale == "group")
    torch.testing.assert_close(mine.flatten(), scored["advantages"], rtol=1e-6, atol=1e-6)


PROMPTS = [[0, 2, 30, 31], [0, 2, 40], [0, 2, 50, 51, 52, 53], [0, 2]]
REPLIES = [[60, 61, 62, 1], [70, 1], [80, 81, 82, 83, 84, 85], [90]]
ADVANTAGES = torch.tensor([0.9, -1.3, 0.4, -0.2])


def theirs_padded():
    """Prompts padded on the left and replies on the right, as TRL has them."""
    left, right = max(map(len, PROMPTS)), max(map(len, REPLIES))
    prompts = torch.tensor([[1] * (left - len(p)) + p for p in PROMPTS])
    replies = torch.tensor([r + [1] * (right - len(r)) for r in REPLIES])
    prompt_mask = torch.tensor([[0] * (left - len(p)) + [1] * len(p) for p in PROMPTS])
    reply_mask = torch.tensor([[1] * len(r) + [0] * (right - len(r)) for r in REPLIES])
    return prompts, prompt_mask, replies, reply_mask


def noise(seed: int, size: float) -> list[torch.Tensor]:
    """A number for each reply token."""
    generator = torch.Generator().manual_seed(seed)
    return [size * torch.randn(len(r), generator=generator) for r in REPLIES]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_loss_and_gradients(folder, trainer, loss_type, beta, temperature):
    made = trainer(
        REWARDS[:4], loss_type=loss_type, beta=beta, epsilon=0.2, epsilon_high=0.28, temperature=temperature,
        use_bias_correction_kl=False,  # V3.2's change to the KL term; ours is that of the GRPO paper
    )  # fmt: skip
    prompts, prompt_mask, replies, reply_mask = theirs_padded()
    model = load_model(folder).eval()
    tokens, labels = pad_batch(PROMPTS, REPLIES, pad=1)
    mask = labels[:, 1:] >= 0
    with torch.no_grad():
        start = reply_logprobs(model, tokens, labels, temperature)[mask].split([len(r) for r in REPLIES])
    old = [x + n for x, n in zip(start, noise(1, 0.4), strict=True)]
    reference = [x + n for x, n in zip(start, noise(2, 0.7), strict=True)]

    def at_replies(values, where):
        return torch.zeros(where.shape).masked_scatter(where, torch.cat(list(values)))

    count = int(mask.sum())
    loss = made._compute_loss(
        made.model,
        {
            "prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": replies,
            "completion_mask": reply_mask, "advantages": ADVANTAGES, "num_items_in_batch": torch.tensor(count),
            "old_per_token_logps": at_replies(old, reply_mask.bool()),
            "ref_per_token_logps": at_replies(reference, reply_mask.bool()),
        },
    )  # fmt: skip
    loss.backward()

    weights = token_weights(mask, {"grpo": "sequence", "dapo": "token"}[loss_type], len(PROMPTS), count)
    part = grpo_loss(
        reply_logprobs(model, tokens, labels, temperature), at_replies(old, mask), ADVANTAGES, weights, 0.2, 0.28,
        at_replies(reference, mask) if beta else None, beta,
    )  # fmt: skip
    part.loss.backward()
    assert part.loss.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert 2 <= part.clipped.item() < count  # the clip is at work, and not everywhere
    ratio = made._metrics["train"]["clip_ratio/region_mean"][0]
    assert part.clipped.item() == pytest.approx(ratio * count)
    if beta:
        assert part.kl.item() / count == pytest.approx(made._metrics["train"]["kl"][0], rel=1e-4)
    compare_gradients(model, made.model)


def compare_gradients(mine, theirs) -> None:
    parameters, other = dict(mine.named_parameters()), dict(theirs.named_parameters())
    for stored in stored_tensors(mine.config, parameters):
        if stored.expert is None:
            expected = other[stored.name].grad
        else:
            stem = stored.name[: stored.name.index(".experts.") + len(".experts.")]
            kind = "down_proj" if stored.rows is None else "gate_up_proj"
            expected = select(other[stem + kind].grad, stored)
        found = select(parameters[stored.parameter].grad, stored)
        assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-7, stored.name


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities(folder, trainer, temperature):
    made = trainer(REWARDS[:4], temperature=temperature)
    prompts, prompt_mask, replies, reply_mask = theirs_padded()
    theirs, _, _ = made._get_per_token_logps_and_entropies(
        made.model, torch.cat((prompts, replies), 1), torch.cat((prompt_mask, reply_mask), 1), replies.shape[1]
    )
    tokens, labels = pad_batch(PROMPTS, REPLIES, pad=1)
    mine = reply_logprobs(load_model(folder).eval(), tokens, labels, temperature)
    torch.testing.assert_close(mine[labels[:, 1:] >= 0], theirs[reply_mask.bool()], rtol=0, atol=1e-5)

"""Checkpoints: a stopped run goes on bit by bit as if it had not been stopped."""

import pytest
import torch

from kogia.errors import FolderError
from kogia.train.checkpoint import NAME, drop_checkpoint, load_checkpoint, save_checkpoint
from kogia.train.loop import train_on_batch
from kogia.train.optim import Optimizer, apply_step


def train(model, optimizer, start: int, stop: int) -> None:
    model.train()
    for i in range(start, stop):
        batch = torch.randint(0, 512, (4, 12), generator=torch.Generator().manual_seed(i))
        train_on_batch(model, batch, batch, 2, 0.3, 1e-4)
        apply_step(model, optimizer, 1e-3 * (i + 1), 1.0, bias_speed=0.001)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"num_nextn_predict_layers": 1}], ids=str)
def test_four_steps_are_two_and_two(make_model, tmp_path, name, changes):
    straight = make_model(1, **{"num_nextn_predict_layers": 2, **changes})
    optimizer = Optimizer(straight, name, 0.1)
    train(straight, optimizer, 0, 2)
    save_checkpoint(tmp_path, straight, optimizer, 2)
    train(straight, optimizer, 2, 4)

    resumed = make_model(99, **{"num_nextn_predict_layers": 2, **changes})
    other = Optimizer(resumed, name, 0.1)
    assert load_checkpoint(tmp_path, resumed, other) == 2
    train(resumed, other, 2, 4)
    for key, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        mine, theirs = optimizer.state(p), other.state(q)
        assert mine.keys() == theirs.keys() != set()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_no_checkpoint_is_step_zero(make_model, tmp_path):
    model = make_model()
    before = model.norm.weight.clone()
    assert load_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1)) == 0
    assert torch.equal(model.norm.weight, before)


def test_a_checkpoint_before_the_first_step(make_model, tmp_path):
    model = make_model(1)
    save_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1), 0)
    other = make_model(2)
    assert load_checkpoint(tmp_path, other, Optimizer(other, "adamw", 0.1)) == 0
    assert torch.equal(other.norm.weight, model.norm.weight)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": 32}, {"num_hidden_layers": 3}, {"num_nextn_predict_layers": 0}, {"q_lora_rank": None}],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_refused(make_model, tmp_path, changes):
    model = make_model()
    save_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1), 1)
    other = make_model(**changes)
    with pytest.raises(FolderError, match=rf"{NAME} is not a checkpoint of this model"):
        load_checkpoint(tmp_path, other, Optimizer(other, "adamw", 0.1))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(1000)], ids=len)
def test_a_broken_checkpoint_is_refused(make_model, tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    model = make_model()
    with pytest.raises(FolderError, match=NAME):
        load_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1))


def test_a_model_folders_weights_are_no_checkpoint(make_model, tmp_path):
    from kogia.formats.safetensors import SINGLE as WEIGHTS
    from kogia.models.folder import save_model

    model = make_model()
    save_model(tmp_path, model)
    (tmp_path / WEIGHTS).rename(tmp_path / NAME)
    with pytest.raises(FolderError, match=NAME):
        load_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1))


def test_dropping(make_model, tmp_path):
    model = make_model()
    save_checkpoint(tmp_path, model, Optimizer(model, "adamw", 0.1), 1)
    drop_checkpoint(tmp_path)
    drop_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())

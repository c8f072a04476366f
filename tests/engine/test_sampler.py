"""From logits to tokens: the random numbers, the distribution, the nucleus."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kogia.engine.sampler import sample, sibling_seed, top_logprobs, truncate, uniforms


def draw(logits, temperature=1.0, top_p=1.0, n=20_000, seed=0):
    """n samples from one row of logits."""
    rows = torch.tensor(logits).expand(n, -1)
    u = uniforms(np.full(n, seed, dtype=np.int64), np.arange(n))
    return sample(rows, torch.full((n,), temperature), torch.full((n,), top_p), u)


# random numbers ------------------------------------------------------------------------------------------------------


def test_uniforms_depend_on_seed_and_position_alone():
    seeds, positions = np.arange(50), np.arange(50)[::-1].copy()
    u = uniforms(seeds, positions)
    assert u.dtype == torch.float64
    order = np.random.default_rng(0).permutation(50)
    assert torch.equal(uniforms(seeds[order], positions[order]), u[order])
    assert uniforms(seeds[7:8], positions[7:8]).item() == u[7].item()


@pytest.mark.parametrize("kind", ["positions of one seed", "first positions of many seeds"])
def test_uniforms_are_uniform(kind):
    n, bins = 100_000, 100
    many, one = np.arange(n), np.full(n, 3)
    u = uniforms(one, many) if kind.startswith("positions") else uniforms(many, one)
    assert float(u.min()) >= 0.0 and float(u.max()) < 1.0
    expected = n / bins
    chi_square = float(((torch.histc(u, bins, 0.0, 1.0) - expected) ** 2 / expected).sum())
    assert 55 < chi_square < 160  # 99 degrees of freedom: 99.98% of true uniforms
    neighbours = float(torch.corrcoef(torch.stack((u[1:], u[:-1])))[0, 1])
    assert abs(neighbours) < 5 / n**0.5


def test_seeds_do_not_overlap_in_their_streams():
    """Neighbouring seeds must not be shifted copies of each other."""
    streams = [uniforms(np.full(200, seed), np.arange(200)).tolist() for seed in range(50)]
    assert len({u for stream in streams for u in stream}) == 50 * 200


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31))
def test_any_64_bit_seed_is_a_seed(seed, position):
    u = uniforms(np.array([seed], dtype=np.int64), np.array([position]))
    assert 0.0 <= u.item() < 1.0


# tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax(temperature):
    logits = [2.0, 0.0, -1.0, 1.0, -30.0]
    p = torch.softmax(torch.tensor(logits) / temperature, -1)
    tokens, logp = draw(logits, temperature)
    counts = torch.bincount(tokens, minlength=5)
    deviation = (counts / len(tokens) - p).abs() / (p * (1 - p) / len(tokens)).sqrt().clamp(min=1e-9)
    assert float(deviation[:4].max()) < 4.0 and counts[4] == 0
    torch.testing.assert_close(logp, p.log()[tokens])


def test_cumulative_inversion_by_hand():
    """p = (0.2, 0.5, 0.3): u below 0.2 is token 0, below 0.7 token 1."""
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(6, -1)
    u = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1.0 - 2.0**-53], dtype=torch.float64)
    tokens, _ = sample(logits, torch.ones(6), torch.ones(6), u)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]


def test_impossible_tokens_are_never_taken():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(3, -1)
    u = torch.tensor([0.0, 0.5, 1.0 - 2.0**-53], dtype=torch.float64)
    tokens, logp = sample(logits, torch.ones(3), torch.ones(3), u)
    assert tokens.tolist() == [1, 3, 3]
    assert logp.tolist() == pytest.approx([math.log(0.5)] * 3)


def test_temperature_zero_takes_the_most_likely_and_reports_it_at_one():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    for u in (0.0, 0.5, 0.999):
        token, logp = sample(logits, torch.zeros(1), torch.ones(1), torch.tensor([u], dtype=torch.float64))
        assert token.item() == 1
        assert logp.item() == pytest.approx(torch.log_softmax(logits, -1)[0, 1].item())


@pytest.mark.parametrize("temperature", [1e-2, 1e-4, 1e-8, 1e-37, 1e-40])
def test_hardly_any_temperature_is_as_good_as_none(temperature):
    """Dividing by it may leave the range of FP32; the answer must not."""
    tokens, logp = draw([1.0, 3.0, 2.0], temperature, n=20)
    assert tokens.tolist() == [1] * 20
    assert torch.isfinite(logp).all()


def test_hardly_any_nucleus_is_the_most_likely_token():
    for top_p in (1e-9, 1e-45):
        assert set(draw([1.0, 3.0, 2.9], top_p=top_p, n=200)[0].tolist()) == {1}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.1, {1}),
        (0.5, {1}),
        (0.51, {1, 3}),
        (0.74, {1, 3}),
        (0.76, {1, 3, 0}),
        (0.91, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_nucleus_by_hand(top_p, kept):
    """p = (0.15, 0.5, 0.1, 0.25); the smallest set of likely tokens that reaches top_p."""
    tokens, logp = draw(torch.tensor([0.15, 0.5, 0.1, 0.25]).log().tolist(), top_p=top_p, n=2000)
    assert set(tokens.tolist()) == kept
    assert logp[tokens == 1][0].item() == pytest.approx(math.log(0.5))  # before the nucleus was cut out


def test_nucleus_keeps_the_proportions():
    tokens, _ = draw(torch.tensor([0.15, 0.5, 0.1, 0.25]).log().tolist(), top_p=0.7)
    assert float((tokens == 1).float().mean()) == pytest.approx(2 / 3, abs=0.015)


def test_rows_have_their_own_settings():
    logits = torch.tensor([[0.0, 1.0, 0.5]]).expand(3, -1)
    u = torch.full((3,), 0.01, dtype=torch.float64)
    tokens, _ = sample(logits, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.3]), u)
    assert tokens.tolist() == [1, 0, 1]


# cutting off ---------------------------------------------------------------------------------------------------------

P = [0.15, 0.5, 0.1, 0.25]


def kept(p, top_p=1.0, top_k=0, min_p=0.0):
    """Tokens that are ever drawn from probabilities p."""
    n = 4000
    rows = torch.tensor(p).log().expand(n, -1)
    u = torch.arange(n, dtype=torch.float64) / n
    settings = torch.full((n,), top_p), u, torch.full((n,), top_k), torch.full((n,), min_p)
    return set(sample(rows, torch.ones(n), *settings)[0].tolist())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (dict(top_k=1), {1}),
        (dict(top_k=2), {1, 3}),
        (dict(top_k=4), {0, 1, 2, 3}),
        (dict(top_k=99), {0, 1, 2, 3}),
        (dict(min_p=0.29), {0, 1, 3}),
        (dict(min_p=0.31), {1, 3}),
        (dict(min_p=1.0), {1}),
        (dict(top_k=2, top_p=0.66), {1}),  # 0.5 is two thirds of what top-k left
        (dict(top_k=2, top_p=0.67), {1, 3}),
        (dict(min_p=0.31, top_p=0.66), {1}),
        (dict(min_p=0.29, top_k=2), {1, 3}),
    ],
)
def test_what_is_cut_off_by_hand(settings, expected):
    assert kept(P, **settings) == expected


def test_of_equals_the_first_stay():
    assert kept([0.25] * 4, top_k=2) == {0, 1}
    assert kept([0.25] * 4, top_p=0.6) == {0, 1, 2}
    assert kept([0.2, 0.3, 0.2, 0.3], top_k=3) == {0, 1, 3}


def plainly_truncated(p, top_p, top_k, min_p):
    """The definition, with a full sort."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    order = [i for i in order if p[i] >= np.float32(min_p) * p[order[0]]]
    order = order[:top_k] if top_k else order
    ends = np.cumsum(p[order], dtype=np.float64)
    total = ends[-1] if top_k or min_p else 1.0
    left = [i for n, i in enumerate(order) if top_p >= 1 or n == 0 or ends[n - 1] < top_p * total]
    out = np.zeros_like(p)
    out[left] = p[left]
    return out


@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 63, 64, 65, 500, 3000]),
    st.sampled_from([0.1, 1.0, 8.0]),
    st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.99, 0.999999, 1.0]),
    st.sampled_from([0, 1, 7, 400]),
    st.sampled_from([0.0, 0.01, 0.5]),
    st.booleans(),
)
def test_the_fast_way_is_the_definition(seed, size, spread, top_p, top_k, min_p, ties):
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * spread
    logits = logits.round() if ties else logits
    p = torch.softmax(logits, -1)
    expected = plainly_truncated(p[0].numpy(), torch.tensor(top_p).item(), top_k, torch.tensor(min_p).item())
    truncate(p, torch.tensor([True]), torch.tensor([top_p]), torch.tensor([top_k]), torch.tensor([min_p]))
    assert np.array_equal(p[0].numpy(), expected)


# a row alone is the row in a batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@given(st.integers(0, 10**6), st.sampled_from([3, 64, 777, 8192, 50_001]), st.sampled_from(["greedy", "plain", "any"]))
@hypothesis_settings(max_examples=30)
def test_other_rows_change_no_bit(threads, seed, size, kind):
    torch.set_num_threads(threads)
    try:
        rng, n = torch.Generator().manual_seed(seed), 5
        logits = torch.randn(n, size, generator=rng) * 4
        temperature = torch.zeros(n) if kind == "greedy" else torch.tensor([0.0, 0.3, 1.0, 0.7, 2.0])
        top_p = torch.tensor([0.5, 1.0, 0.9, 1.0, 0.95]) if kind == "any" else torch.ones(n)
        top_k, min_p = torch.tensor([0, 5, 0, 0, 50]), torch.tensor([0.0, 0.0, 0.0, 0.1, 0.01])
        top_k, min_p = (top_k, min_p) if kind == "any" else (torch.zeros_like(top_k), torch.zeros_like(min_p))
        u = torch.rand(n, dtype=torch.float64, generator=rng)
        tokens, logp = sample(logits, temperature, top_p, u, top_k, min_p)
        for i in range(n):
            row = slice(i, i + 1)
            one = sample(logits[row].clone(), temperature[row], top_p[row], u[row], top_k[row], min_p[row])
            assert one[0].equal(tokens[row]) and one[1].equal(logp[row])
    finally:
        torch.set_num_threads(1)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 64, 1000, 8192, 8193, 20_000]))
def test_tokens_are_those_of_one_long_sum(seed, size):
    """Summing block by block changes nothing but the last bits."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(1, size)).astype(np.float32) * 3)
    u = rng.random()
    ends = np.cumsum(torch.softmax(logits, -1)[0].double().numpy())
    if np.abs(ends - u * ends[-1]).min() > 1e-9:
        expected = int(np.searchsorted(ends, u * ends[-1], side="right"))
        assert sample(logits, torch.ones(1), torch.ones(1), torch.tensor([u]))[0].item() == expected


def test_rounding_never_reaches_an_impossible_token():
    """The largest uniform number times the total may round to the total."""
    for seed in range(200):
        logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(seed))
        logits[:, 150:] = -math.inf
        token = sample(logits, torch.ones(1), torch.ones(1), torch.tensor([1 - 2.0**-53], dtype=torch.float64))[0]
        assert token.item() == 149


def test_not_a_number_harms_no_other_row():
    logits = torch.randn(3, 100)
    bad = logits.clone()
    bad[1, 5] = math.nan
    settings = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.9, 0.9, 1.0]), torch.full((3,), 0.4, dtype=torch.float64)
    good, (tokens, logp) = sample(logits, *settings), sample(bad, *settings)
    assert tokens[[0, 2]].equal(good[0][[0, 2]]) and logp[[0, 2]].equal(good[1][[0, 2]])
    assert 0 <= int(tokens[1]) < 100


# siblings and alternatives -------------------------------------------------------------------------------------------


def test_siblings_have_seeds_of_their_own():
    assert sibling_seed(7, 0) == 7
    seeds = [sibling_seed(seed, j) for seed in range(100) for j in range(128)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert sibling_seed(2**63 - 1, 5) == sibling_seed(2**63 - 1, 5)


def test_top_logprobs_by_hand():
    logits = torch.tensor(P).log()
    assert [id for id, _ in top_logprobs(logits, 1.0, 3)] == [1, 3, 0]
    assert top_logprobs(logits, 0.0, 1)[0][1] == pytest.approx(math.log(0.5), rel=1e-5)
    halves = torch.tensor(P).sqrt()
    assert top_logprobs(logits, 2.0, 1)[0][1] == pytest.approx(math.log(halves[1] / halves.sum()), rel=1e-5)
    assert top_logprobs(logits, 1.0, 0) == []
    assert len(top_logprobs(logits, 1.0, 20)) == 4


def test_top_logprobs_agree_with_what_was_sampled():
    logits = torch.randn(1, 500)
    token, logp = sample(logits, torch.ones(1), torch.ones(1), torch.tensor([0.3], dtype=torch.float64))
    assert dict(top_logprobs(logits[0], 1.0, 500))[int(token)] == pytest.approx(float(logp), abs=1e-6)


def test_top_logprobs_of_equals_and_impossible_tokens():
    logits = torch.tensor([0.0, -math.inf, 0.0, 0.0, -math.inf])
    assert [id for id, _ in top_logprobs(logits, 1.0, 2)] == [0, 2]
    assert [id for id, _ in top_logprobs(logits, 1.0, 5)] == [0, 2, 3]

"""The promise of `make demo`, kept: what recipes/nano.toml must reach on held-out problems. Takes about ten minutes."""

import json
from pathlib import Path

import pytest
from command import kogia

RECIPE = Path(__file__).parents[2] / "recipes" / "nano.toml"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nano_learns_to_reason(tmp_path):
    code, _, errors = kogia("run", RECIPE, "--out", tmp_path / "nano", timeout=3600)
    assert code == 0, errors
    measured = {
        stage: json.loads((tmp_path / "nano" / stage / "kogia.json").read_text())["measured"]
        for stage in ("base", "zero", "final")
    }
    print(json.dumps(measured, indent=1))
    assert measured["base"]["pass@1"] <= 0.40
    assert measured["zero"]["pass@1"] >= 0.75
    assert measured["final"]["pass@1"] >= 0.85
    assert measured["base"]["korean_in_korean"] < 0.80
    assert measured["final"]["korean_in_korean"] >= 0.95

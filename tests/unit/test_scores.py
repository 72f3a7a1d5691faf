import numpy as np
import pytest

from bigtickets.errors import DamagedError, InputError
from bigtickets.tickets.scores import Scores, load_scores, read_provenance

RANDOM = np.random.default_rng(0)
SAMPLE_ELN = RANDOM.gamma(2.0, RANDOM.gamma(1.0, 1.0, (3, 5)), (40, 3, 5))


def scores_of(sample_ELN, granularity="example", unit="heads"):
    """Scores of a sample, E x L x N."""
    return Scores(
        {unit: sample_ELN.sum(0)}, {unit: (sample_ELN**2).sum(0)}, len(sample_ELN), granularity
    )


def test_mean_and_standard_error_are_those_of_the_sample():
    scores = scores_of(SAMPLE_ELN)
    np.testing.assert_allclose(scores.mean()["heads"], SAMPLE_ELN.mean(0))
    expected = SAMPLE_ELN.std(0, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(scores.standard_error()["heads"], expected)


def test_few_examples():
    assert np.isnan(scores_of(SAMPLE_ELN[:1]).standard_error()["heads"]).all()
    assert np.isnan(scores_of(SAMPLE_ELN[:1]).stability("layer")["heads"])
    assert (scores_of(SAMPLE_ELN[:0]).mean()["heads"] == 0).all()


def test_constant_scores_have_no_error():
    constant = scores_of(np.full((7, 1, 2), 0.1))
    np.testing.assert_allclose(constant.standard_error()["heads"], 0, atol=1e-9)


def test_normalisation():
    mean_LN = SAMPLE_ELN.mean(0)
    scores = scores_of(SAMPLE_ELN)
    np.testing.assert_array_equal(scores.normalized("none")["heads"], mean_LN)
    expected = mean_LN / np.linalg.norm(mean_LN)
    np.testing.assert_allclose(scores.normalized("global")["heads"], expected)
    layer_LN = scores.normalized("layer")["heads"]
    np.testing.assert_allclose(np.linalg.norm(layer_LN, axis=1), 1)
    np.testing.assert_allclose(layer_LN[1], mean_LN[1] / np.linalg.norm(mean_LN[1]))


@pytest.mark.parametrize("mode", ["none", "layer", "global"])
def test_zeros_stay_zero(mode):
    assert (scores_of(np.zeros((4, 2, 3))).normalized(mode)["heads"] == 0).all()


def test_blocks_are_not_made_equal_by_layer():
    scores = scores_of(SAMPLE_ELN[:, :, :1], unit="blocks")
    assert len(set(scores.normalized("layer")["blocks"].flat)) == 3


def test_stability_is_the_correlation_with_another_sample():
    scale_LN = RANDOM.gamma(2.0, 1.0, (4, 200))
    first, second = (
        scores_of(RANDOM.gamma(1.0, scale_LN, (10, 4, 200))).normalized("layer")["heads"]
        for _ in range(2)
    )
    stability = scores_of(RANDOM.gamma(1.0, scale_LN, (10, 4, 200))).stability("layer")["heads"]
    assert stability == pytest.approx(np.corrcoef(first.flat, second.flat)[0, 1], abs=0.06)
    noise = scores_of(RANDOM.gamma(1.0, 1.0, (10, 4, 200)))
    assert noise.stability("none")["heads"] < 0.15


def test_file_round_trip_is_exact(tmp_path):
    scores = scores_of(SAMPLE_ELN, "token")
    scores.save(tmp_path / "scores.safetensors", {"model": "L3"})
    loaded = load_scores(tmp_path / "scores.safetensors")
    assert loaded.digest == scores.digest
    assert (loaded.count, loaded.granularity) == (40, "token")
    np.testing.assert_array_equal(loaded.sums["heads"], scores.sums["heads"])
    np.testing.assert_array_equal(loaded.squares["heads"], scores.squares["heads"])
    assert read_provenance(tmp_path / "scores.safetensors") == {"model": "L3"}


def test_damage_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "scores.safetensors"
    scores_of(SAMPLE_ELN).save(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedError, match=r"scores\.safetensors"):
            load_scores(path)
    for length in (0, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            load_scores(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_scores(tmp_path / "scores.safetensors")

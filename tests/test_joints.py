import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handaug.data_specs.joints import BONES, FINGERS, JOINTS, ORDERS, PARENTS, order_map, reorder

# (canonical index -> source index), written out by hand from the public loaders; the product derives them from names
WRITTEN_OUT = {
    "rhd": [0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17],
    "stb": [-1, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4],
    "interhand": [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16],
    "mano": [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20],
    "handaug": list(range(21)),
}


def test_tree() -> None:
    assert len(JOINTS) == 21 == len(set(JOINTS)) and len(BONES) == 20
    assert (
        JOINTS[0] == "wrist" and JOINTS[1] == "thumb_cmc" and JOINTS[9] == "middle_mcp" and JOINTS[20] == "little_tip"
    )
    for name, chain in FINGERS.items():
        assert [PARENTS[j] for j in chain] == [0, *chain[:-1]]
        assert all(JOINTS[j].startswith(name) for j in chain)


@pytest.mark.parametrize("source", sorted(ORDERS))
def test_order_maps_agree_with_the_written_out_ones(source: str) -> None:
    assert order_map(source).tolist() == WRITTEN_OUT[source]


@given(st.sampled_from(sorted(set(ORDERS) - {"stb"})), st.integers(0, 2**32 - 1))
def test_reorder_puts_each_value_under_its_name(source: str, seed: int) -> None:
    theirs = np.random.default_rng(seed).normal(size=(2, 21, 3))
    ours = reorder(theirs, source)
    for j, name in enumerate(JOINTS):
        assert np.array_equal(ours[:, j], theirs[:, ORDERS[source].index(name)])


def test_a_joint_that_the_source_lacks_is_nan() -> None:
    ours = reorder(np.ones((4, 21, 2), np.float32), "stb")
    assert np.isnan(ours[:, 0]).all() and np.isfinite(ours[:, 1:]).all()
    with pytest.raises(ValueError, match="wrist"):
        reorder(np.ones((4, 21, 2), np.int64), "stb")
    with pytest.raises(ValueError, match="20 joints"):
        reorder(np.ones((20, 2)), "rhd")

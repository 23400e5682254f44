"""Pickles of strangers: everything the datasets hold comes through, and nothing else is ever called."""

import base64
import io
import os
import pickle
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from handaug.data_specs.errors import InputError
from handaug.data_specs.safe_pickle import Inert, load_pickle


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "a.pickle"
    path.write_bytes(content)
    return path


def same(left: Any, right: Any) -> bool:
    if isinstance(right, np.ndarray):
        if type(left) is not np.ndarray or left.dtype != right.dtype or left.shape != right.shape:
            return False
        return all(map(same, left.flat, right.flat)) if right.dtype == object else bool((left == right).all())
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in right)
    if isinstance(right, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


@pytest.mark.parametrize("protocol", range(6))
def test_data_come_through_every_protocol(tmp_path: Path, protocol: int) -> None:
    shared = np.arange(6, dtype=">i4").reshape(2, 3)
    objects = np.empty((2, 2), object)
    objects[0, 0], objects[1, 1] = shared, "text"
    content = {
        0: {"uv_vis": np.random.default_rng(0).normal(size=(42, 3)), "K": np.eye(3, dtype=np.float32).T},
        "name": "hand",
        "again": [shared, shared, (None, True, 1.5, 2**80, 3j, b"\x00\xff", "é")],
        "scalar": np.float32(0.1),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "words": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "objects": objects,
        "empty": np.empty((0, 3)),
        "flags": np.array([True, False]),
        "set": {1, 2},
    }
    found = load_pickle(saved(tmp_path, pickle.dumps(content, protocol)))
    assert isinstance(found, dict)
    assert same(found, pickle.loads(pickle.dumps(content, protocol)))
    assert found["again"][0] is found["again"][1]
    found["again"][0][0, 0] = 7  # an ordinary array, which can be written


def python2_pickle() -> bytes:
    """{7: {'K': eye(2)}, 'objName': 'a\\xff'} as Python 2's protocol 2 writes it, opcode by opcode."""
    raw = np.eye(2).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    return b"\x80\x02}(K\x07}U\x01K" + array + b"sU\x07objNameU\x02a\xffu."


FROM_PYTHON_2 = {
    0: (
        "eJylkE9rhDAUxO/zRZJLJVFrt1DYsxQs1OtCSdTILv4JSYQV+uH71rWwFjwVMofkTZjfG15biZJdxvMQPIONUQ1Tb+eoGl0T9VMXzso5NePLNd"
        "U4+OCmKsAm4Hcfhvo+tyl4LhBKphnCp32mqwQPq60Os21gM/CSfRwYyEpj8r2QLyGCb4aiKPIniUVZgqBzIcA7e0ChgvYlM2yPzleqUw72Fbxd"
        "Mkz6kCHFGvK2DSFcXbLTVYhfHRd2KUFpo74Uqm+oFBnTX3W6GnO7JPA5UVNxKT2/M7TURvtnfbnun8egE1aox8Vltg91W3wLtpURx/3hf2WWFr"
        "T30Q+iXZVM"
    ),
    2: (
        "eJx1j81qwkAUhWcm1rTTH32ELtNNVi5cFLLvhSkIdykyGSNRTOKdTBaBCt3U4tv6BnaIllLQs7ibc/j47qfYEo+wv6qWpatJmLIpNm1sKpvFRb"
        "N2S22tbuXMZqYqa2cb4yQFp5Us56eWesC+kKffE7qJgL+c67lrN5mkPor3MTDgvg4jCJB/KKXejj7dgcSl+yndKu1S5IsrBrXRa20l3eWetxid"
        "ebLjvf7nMc/pMcaS3YTuMazSldJFRg8o9JEeIdzSE3LIg/xPe+C1QYDYdfRf2+EV+h6fWZdDwi7m4F+qm/gH01Vy7A=="
    ),
}
"""cPickle.dumps({7: {'K': np.eye(2)}, 'objName': 'a\\xff', 'joints': np.array(None), 'f': np.float32(0.5)}, protocol),
written by Python 2.7.18 with NumPy 1.16.6, zlib and base64."""


@pytest.mark.parametrize("protocol", FROM_PYTHON_2)
def test_what_python_2_itself_wrote(tmp_path: Path, protocol: int) -> None:
    found = load_pickle(saved(tmp_path, zlib.decompress(base64.b64decode(FROM_PYTHON_2[protocol]))))
    assert isinstance(found, dict)
    assert found.pop("joints")[()] is None
    assert same(found, {7: {"K": np.eye(2)}, "objName": "a\xff", "f": np.float32(0.5)})


def test_python_2_pickles(tmp_path: Path) -> None:
    found = load_pickle(saved(tmp_path, python2_pickle()))
    assert same(found, {7: {"K": np.eye(2)}, "objName": "a\xff"})


class Runs:
    """Unpickles by calling a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, exec, np.load, np.fromfile, __import__, getattr, io.open])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int, function: Any) -> None:
    witness = tmp_path / "witness"
    path = saved(tmp_path, pickle.dumps([np.eye(2), Runs(function, f"touch {witness}")], protocol))
    with pytest.raises(InputError, match=rf"a\.pickle: asks for \S*{function.__name__}, which is not allowed"):
        load_pickle(path, allowed=("chumpy.*",))
    assert not witness.exists()


def test_dotted_names_and_neighbours_of_allowed_classes_are_refused(tmp_path: Path) -> None:
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x16core.multiarray.os.sys\x93."
    for content, name in (
        (dotted, r"numpy\.core\.multiarray\.os\.sys"),
        (b"cchumpyevil\nch\n.", r"chumpyevil\.ch"),
        (b"cchumpy.utils\nrun\n.", r"chumpy\.utils\.run"),
        (b"\x82\x01.", "extension"),
        (b"P7\n.", "object outside the file"),
    ):
        with pytest.raises(InputError, match=name):
            load_pickle(saved(tmp_path, content), allowed=("chumpy.ch.Ch",))


def test_allowed_classes_become_inert(tmp_path: Path) -> None:
    matrix = scipy.sparse.csc_matrix(np.array([[0, 2.0, 0], [1.0, 0, 0], [0, 0, 3.0]]))
    old = (
        b"\x80\x02(cchumpy.ch\nCh\n)\x81}U\x01xK\x05sbccopy_reg\n_reconstructor\ncchumpy.ch\nCh\n"
        b"c__builtin__\nobject\nN\x87R}U\x01xK\x06sbl."
    )
    pair = load_pickle(saved(tmp_path, old), allowed=("chumpy.ch.Ch",))
    assert isinstance(pair, list)
    first, second = pair
    assert isinstance(first, Inert) and first.class_name == "chumpy.ch.Ch"
    assert (first.state, second.state) == ({"x": 5}, {"x": 6})
    for protocol in (0, 2, 4):
        sparse = load_pickle(saved(tmp_path, pickle.dumps(matrix, protocol)), allowed=("scipy.sparse.*",))
        assert isinstance(sparse, Inert)
        np.testing.assert_array_equal(sparse.toarray(), matrix.toarray())
    with pytest.raises(ValueError, match="does not hold a CSC matrix"):
        first.toarray()


FORGED = {
    # an object dtype whose flags say that it holds no objects: NumPy would take bytes for pointers
    "pointers": b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR(I3\nX\x01\x00\x00\x00|NNNI8\nI8\nI0\ntb",
    "structured": b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8I00\nI01\ntR(I3\nX\x01\x00\x00\x00|NNNI8\nI8\nI0\ntb",
}


@pytest.mark.parametrize("dtype", FORGED)
def test_forged_arrays_are_refused(tmp_path: Path, dtype: str) -> None:
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntX\x01\x00\x00\x00btR(I1\n(I1\nt"
    content = array + FORGED[dtype] + b"I00\nX\x08\x00\x00\x00AAAAAAAAtb."
    with pytest.raises(InputError, match="not a sound pickle"):
        load_pickle(saved(tmp_path, content))


def test_arrays_that_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    honest = python2_pickle()
    liar = honest.replace(b"K\x02K\x02\x86", b"K\x02K\x7f\x86")
    for content in (liar, honest.replace(b"(K\x03U\x01<", b"(K\x03U\x01?"), b"cnumpy\nndarray\n(I9\ntR."):
        with pytest.raises(InputError, match="not a sound pickle"):
            load_pickle(saved(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        python2_pickle()[:-30],
        b"cnumpy\ndtype\n.",  # a class where data should be
        b"cnumpy.core.multiarray\nscalar\n}(X\x08\x00\x00\x00__code__Nubcnumpy\ndtype\n.",  # state for a function
        b"(" * 100 + b"t" * 100 + b".",
        b"(l" * 100_000 + b"a" * 99_999 + b".",
        pickle.dumps(OrderedDict(a=1)),
    ],
)
def test_damage_is_one_line(tmp_path: Path, content: bytes) -> None:
    if content.startswith(b"((((") and content.endswith(b"t."):
        assert load_pickle(saved(tmp_path, content)) is not None  # deep, but sound
        return
    with pytest.raises(InputError) as caught:
        load_pickle(saved(tmp_path, content))
    assert "a.pickle" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pkl: cannot be read \(No such file"):
        load_pickle(tmp_path / "nowhere.pkl")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | stn.arrays(stn.integer_dtypes() | stn.unicode_string_dtypes() | stn.boolean_dtypes(), stn.array_shapes()),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(value=VALUES, protocol=st.integers(0, 5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "round.pickle"
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(load_pickle(path), pickle.loads(path.read_bytes()))


@given(content=st.binary(max_size=60), cut=st.integers(0, 200), place=st.integers(0, 200))
def test_noise_never_escapes(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, place: int) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pickle"
    sound = python2_pickle()
    path.write_bytes(sound[:place] + content + sound[place + cut :])
    try:
        load_pickle(path)
    except InputError as error:
        assert "noise.pickle" in str(error)

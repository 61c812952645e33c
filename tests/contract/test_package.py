"""The package itself: its names, which are imported on first use."""

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import socket
import subprocess
import sys

import pytest

import skdiffsmooth

FOLDER = pathlib.Path(skdiffsmooth.__file__).parent
MODULES = {
    path.stem
    for path in FOLDER.iterdir()
    if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
}


def run(code):
    """Run in a process of its own, where nothing is imported yet."""
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)


def test_every_public_module_and_name_is_an_attribute():
    assert len(MODULES) > 10
    for name in MODULES | set(skdiffsmooth.__all__):
        assert getattr(skdiffsmooth, name) is not None
        assert name in dir(skdiffsmooth)


def test_they_are_attributes_without_another_import_and_loaded_on_use():
    """One process for all of it, since each loads torch; a model is unpickled by its own name."""
    names = ", ".join(f"skdiffsmooth.{name}" for name in sorted(MODULES))
    run(
        "import skdiffsmooth, sys; assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules);"
        "skdiffsmooth.SmoothedScoreDiffusion;"
        "slow = {'sklearn.cluster', 'sklearn.mixture', 'sklearn.model_selection'};"
        "assert not slow & set(sys.modules), slow & set(sys.modules);"
        f"{names}; assert not {{'imblearn', 'matplotlib'}} & set(sys.modules);"
        "from skdiffsmooth import *; KDESampler, sample;"
        "import pickle, numpy; model = KDESampler(0.5).fit(numpy.eye(3)); text = pickle.dumps(model);"
        "assert type(pickle.loads(text)) is skdiffsmooth.KDESampler;"
        "from skdiffsmooth.displays import DensityDisplay;"
        "DensityDisplay.from_estimator(model, grid_resolution=3);"
        "assert 'matplotlib' not in sys.modules"
    )


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'skdiffsmooth' has no attribute 'KdeSampler'"):
        skdiffsmooth.KdeSampler  # noqa: B018
    assert not hasattr(skdiffsmooth, "numpy")


def test_records_cannot_be_changed():
    """A setting that changes after a fit would not be that of the model; displays and scorers may."""
    names = [each.name for each in pkgutil.walk_packages([str(FOLDER)], "skdiffsmooth.")]
    records = {
        value
        for name in names
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and dataclasses.is_dataclass(value)
    }
    changeable = {r.__name__ for r in records if not r.__dataclass_params__.frozen}
    assert {name for name in changeable if not name.endswith(("Display", "Scorer"))} == set()
    assert len(records) > 80


def test_types_are_shipped():
    """Without the marker a user's type checker takes every name for Any."""
    assert (FOLDER / "py.typed").exists()


def test_tests_do_without_a_network():
    # An address that is reserved for documentation, RFC 5737.
    with pytest.raises(RuntimeError, match="tests do without a network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)

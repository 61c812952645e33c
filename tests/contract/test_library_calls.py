"""Methods of parts that the library calls, with arrays and tensors, and results of public functions.

Methods and functions are discovered. The library passes arguments that it has checked, so wrong ones are
not tried: a method must change neither its arguments, nor its object, nor a global state, and return the
same for the same arguments. A result must survive pickling and share no memory with the arguments.
"""

import copy
import inspect
import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from test_parameters import (
    OBJECTS,
    REQUIRED,
    SMALL,
    X,
    functions,
    library_methods,
    public_parts,
    required,
)

from skdiffsmooth._coordinates.hull import AffineHull
from skdiffsmooth.compose import ChangeOfVariables, change_of_variables
from skdiffsmooth.tables import TableColumns


class GaussianField:
    """The score of a standard normal distribution with noise, and its divergence."""

    def __call__(self, x, v):
        return -x / (1 + v)

    def with_divergence(self, x, v):
        return self(x, v), torch.full_like(x[:, 0], -x.shape[1] / (1 + v))

    def rows(self, index):
        return self


FRAME = pd.DataFrame(
    {
        "level": list("abcabcab"),
        "number": [0.0, 0.12, 0.31, 0.44, 0.59, 0.63, 0.7, 0.81],
        "count": [0, 1, 3, 2, 0, 5, 2, 1],
    }
)
TABLE = TableColumns.fit(FRAME)
ROWS = TABLE.encode(FRAME)
LIBRARY_OBJECTS = OBJECTS | {
    "ChangeOfVariables": ChangeOfVariables(StandardScaler().fit(X), log_slopes=np.zeros_like),
    "TableColumns": TABLE,
    "EncodedTable": ROWS,
}
# All others are made without arguments.
for each, _ in library_methods():
    if each not in LIBRARY_OBJECTS:
        LIBRARY_OBJECTS[each] = public_parts()[each]()
ARGUMENTS = {
    "hull": AffineHull.of(X),
    "points": X,
    "weights": np.full(len(X), 1 / len(X)),
    "n_steps": 4,
    "field": GaussianField(),
    "start": 0.5,
    "end": 0.4,
    **dict.fromkeys(("X", "Z"), X),
    "n": 5,
    "n_features": 2,
    "d": 2,
    "names": None,
    **dict.fromkeys(("u", "p"), np.array([0.1, 0.7])),
    "rows": ROWS,
    "values": ROWS.values,
    "z": ROWS.values,
    "given": {"number": 0.2},
    "n_rows": 3,
    "frames": [FRAME, FRAME],
    "order": np.array([7, 0]),
    "n_draws": 2,
    "index": 0,
    "level": 0,
}
ARGUMENTS_OF = {
    ("EncodedTable", "take"): {"rows": np.array([2, 0])},
    ("TableColumns", "fill"): {"X": FRAME.mask(FRAME == 0.12)},
}


def arguments_of(name, method, dtype):
    """Return new right arguments of a method; tensors, if it takes any, have a dtype."""
    names = inspect.signature(getattr(LIBRARY_OBJECTS[name], method)).parameters
    x = torch.as_tensor(X, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    draws = {"x": x, "draw": lambda: torch.randn(x.shape, dtype=dtype, generator=generator)}
    draws |= {each: np.random.RandomState(0) for each in ("rng", "generator")}
    right = copy.deepcopy(ARGUMENTS) | draws | ARGUMENTS_OF.get((name, method), {})
    return {each: right[each] for each in names}


def contents(value):
    """Return a value as nested tuples, which are equal where all of its parts are, to the last bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, pd.DataFrame):
        return contents({name: value[name].to_numpy() for name in value})
    if isinstance(value, dict):
        return tuple((repr(key), contents(each)) for key, each in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return type(value).__name__, tuple(contents(each) for each in value)
    if isinstance(value, np.random.RandomState | torch.Generator) or callable(value):
        return type(value).__name__  # draws advance a generator
    if isinstance(value, str | bytes | float | int | None):
        return repr(value)  # NaN equals NaN
    return type(value).__name__, contents(value.__getstate__())  # without caches


def global_state():
    # The states that are meant.
    drawn = np.random.get_state()[1:3], torch.get_rng_state()  # noqa: NPY002
    settings = torch.get_default_dtype(), torch.get_num_threads(), np.geterr(), warnings.filters
    return contents([drawn, repr(settings)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "method"), library_methods())
def test_a_method_that_the_library_calls_only_returns(name, method, dtype):
    part = LIBRARY_OBJECTS[name]
    call = getattr(part, method)
    arguments = arguments_of(name, method, dtype)
    attributes = set(getattr(part, "__dict__", ()))

    def state():
        # Cached properties may be added.
        kept = {each: getattr(part, each) for each in attributes}
        return contents(arguments), contents(kept), global_state()

    before = state()
    result = call(**arguments)
    assert state() == before
    assert contents(call(**arguments_of(name, method, dtype))) == contents(result)
    for tensor in result if isinstance(result, tuple) else (result,):
        if isinstance(tensor, torch.Tensor):
            assert tensor.dtype == dtype
            assert torch.isfinite(tensor).all()
            assert len(tensor) == len(X)


@pytest.mark.parametrize(("name", "method"), [m for m in library_methods() if m[1] == "step"])
def test_a_step_moves_each_row_by_itself(name, method):
    solver = LIBRARY_OBJECTS[name]
    x, noise = torch.as_tensor(X), torch.as_tensor(X[::-1].copy())

    def moved(rows):
        return solver.step(GaussianField(), x[rows], 0.5, 0.4, lambda: noise[rows])

    order = torch.arange(len(x)).flip(0)
    # The step size of a corrector is common to all rows: an average, in another order.
    torch.testing.assert_close(moved(order), moved(torch.arange(len(x)))[order], rtol=1e-13, atol=0)


# ----------------------------------------------------------------------------------------- results


def arrays_in(value):
    """Return the arrays that a value holds, in tuples, mappings, frames and attributes."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, pd.DataFrame):
        return [value[name].to_numpy() for name in value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [array for each in value for array in arrays_in(each)]
    return arrays_in(vars(value)) if hasattr(value, "__dict__") and not callable(value) else []


def calls():
    """Return the public functions with required arguments that are known, and their parameters."""
    found = {p.values[0]: None for p in [*required(), *functions()]}
    # The change of variables is a view of its transformer, which is made when it is needed.
    found.pop(change_of_variables)
    return [each for each in found if each.__name__ in REQUIRED or not _needs(each)]


def _needs(function):
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)


@pytest.mark.parametrize("function", calls(), ids=lambda f: f.__name__)
def test_a_result_is_repeatable_own_and_can_be_saved(function):
    arguments, options = REQUIRED.get(function.__name__, ()), dict(SMALL.get(function.__name__, {}))
    parameters = inspect.signature(function).parameters
    if "random_state" in parameters or "options" in parameters:
        options["random_state"] = 0
    call = partial(function, *arguments, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = global_state()
        result = call()
        assert global_state() == before
        assert contents(call()) == contents(result)
    for array in arrays_in(result):
        for argument in arrays_in(arguments):
            assert not np.shares_memory(array, argument)
    assert contents(pickle.loads(pickle.dumps(result))) == contents(result)

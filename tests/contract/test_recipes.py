"""The examples of docs/guide/displays.md run where the packages that they import are installed."""

import pathlib
import re

import matplotlib as mpl
import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "guide" / "displays.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
# They need packages that not every environment has; all others are run in order.
OTHERS = {
    name: block
    for block in BLOCKS
    for name in ("arviz", "corner", "getdist", "optuna", "dask.distributed")
    if block.startswith(f"import {name}\n")
}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The variables after all blocks that need no other package."""
    mpl.use("Agg")
    variables: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        # One of them writes a file.
        patch.chdir(tmp_path_factory.mktemp("displays"))
        for block in BLOCKS:
            if block not in OTHERS.values():
                exec(block, variables)
    return variables


def test_the_guide_to_displays(names):
    assert names["result"].names == ["KDE", "mixture", "smoothed"]
    assert list(names["table"].columns) == ["mean", "difference", "standard_error", "n_zero"]
    assert names["model"].weight_sum_ == len(names["flowers"])
    assert len(OTHERS) == 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", OTHERS)
def test_recipes_of_other_packages(names, package):
    pytest.importorskip(package)
    exec(OTHERS[package], dict(names))

"""What all tests share."""

import hypothesis
import pytest
import torch

# The same examples in every run, so that a change is judged by what it changes; new ones are looked
# for with `pytest -m hypothesis --hypothesis-profile=explore`.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small problems gain nothing from threads, and lose much where the machine is shared."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)

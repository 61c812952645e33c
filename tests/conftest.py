"""What all tests share."""

import collections
import gc
import pathlib
import random
import socket

import pytest


def pytest_configure(config):
    """Take the same examples in every run, so that a change is judged by what it changes.

    Others are tried by `pytest -m hypothesis --hypothesis-profile=explore`. The process that only
    distributes tests to others imports neither hypothesis nor torch, for which these would wait.
    """
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import hypothesis

    hypothesis.settings.register_profile("explore", deadline=None)
    hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("repeatable")


# Collection makes many objects that stay: nothing of them is garbage to look for, then or later.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(10_000)  # at 700 objects garbage collection takes 3 % of the time
    gc.enable()


@pytest.fixture(autouse=True)
def what_others_draw_without_a_seed():
    """Other libraries draw from global states where a test gives them no seed: the same every time.

    Nothing of ours does, which test_common.py checks.
    """
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the state that is meant)
    # torch.manual_seed seeds each kind of device too, which takes half a millisecond a test.
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def same_draws_in_any_order(request):
    """A generator `RNG` of a module begins anew with each test, whichever tests ran before."""
    import numpy as np

    rng = getattr(request.module, "RNG", None)
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
    elif rng is not None:
        rng.seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small problems gain nothing from threads, and lose much where the machine is shared."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Tests may connect within this machine only, as the cluster of Dask does."""
    connect = socket.socket.connect

    def connect_within(self, address):
        # A datagram socket that connects sends nothing: that is how a machine finds its own address.
        is_internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if is_internet and self.type & socket.SOCK_STREAM and not is_local(address[0]):
            raise RuntimeError(f"a test connects to {address}; tests do without a network")
        return connect(self, address)

    socket.socket.connect = connect_within
    yield
    socket.socket.connect = connect


def is_local(host):
    return host in ("localhost", "::1") or host.startswith("127.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With --dist loadgroup make a fixture of a module once, and start joblib's processes once.

    Other tests go in groups of eight of a module, since the scheduler's time grows with the number of
    groups times that of tests; it starts the largest groups first. The groups of pytest-xdist 3.8
    have no effect under pytest 9.2, whose items have no `_nodeid`.
    """
    from xdist.scheduler import LoadScopeScheduling  # the hook is called where it is installed

    if config.getvalue("dist") != "loadgroup":
        return None
    shared = {
        path.relative_to(config.rootpath).as_posix()
        for path in pathlib.Path(__file__).parent.rglob("test_*.py")
        if 'scope="module"' in path.read_text()
    }

    groups, n_tests = {}, collections.Counter()

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if nodeid not in groups:
                path, _, name = nodeid.partition("::")
                n_tests[path] += 1
                group = path if path in shared else f"{path} {n_tests[path] // 8}"
                is_parallel = "workers" in name.partition("[")[0]
                groups[nodeid] = "workers" if is_parallel else group
            return groups[nodeid]

    return ByFixture(config, log)

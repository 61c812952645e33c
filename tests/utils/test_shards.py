"""Tests of training rows spread over processes: results are those of one process with all rows.

The merging formulas are tested in one process, where two threads play the two processes, against
the two loops of `oracles`. Two real processes then run the estimators, once for all tests: starting
them takes longer than what they compute.
"""

import pickle
import re
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engine_problems import Problem, assert_matches_oracle, longest, problem, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from thread_shards import in_two_threads

from skdiffsmooth import ManifoldAdaptedDiffusion, SmoothedScoreDiffusion
from skdiffsmooth._diffusion import settings as diffusion_settings
from skdiffsmooth._engine.factorised import Factoriser
from skdiffsmooth._engine.moments import Nodes
from skdiffsmooth._engine.posterior import Posterior

# Seconds after which processes that wait for one another are given up.
TIMEOUT = 120

# -------------------------------------------------------------------------- two threads, no process


@dataclass(frozen=True)
class ShardedProblem(Problem):
    """The same problem, its first points in one thread and the others in another."""

    n_first: int = 1

    @classmethod
    def of(cls, case, n_first):
        return cls(*(getattr(case, f.name) for f in fields(case)), n_first)

    def posteriors(self, dtype, shards):
        here = slice(self.n_first) if shards.rank == 0 else slice(self.n_first, None)
        arrays = tensors(dtype, self.points[here], self.log_weights[here])
        return Posterior(*arrays, memory_limit=16.0, shards=shards)

    def moments(self, *, trace, dtype=torch.float64):
        (queries,) = tensors(dtype, self.queries)

        def work(shards):
            posterior = self.posteriors(dtype, shards)
            found = posterior.moments(queries, self.v, self.nodes(dtype), trace=trace)
            if not trace:
                assert torch.equal(posterior.mean(queries, self.v, self.nodes(dtype)), found.mean)
            return found, posterior.log_density(queries, self.v)

        (first, density), (second, same_density) = in_two_threads(work)
        for name in ("mean", "log_density") + trace * ("trace",):
            assert torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(density, same_density)
        return first


@st.composite
def sharded_problems(draw):
    n_points = draw(st.sampled_from([2, 3, 7, 150]))
    v = 10 ** draw(st.floats(-9, 3))
    case = problem(
        draw(st.integers(0, 2**20)),
        draw(st.integers(1, 3)),
        n_points,
        draw(st.integers(1, 5)),
        draw(st.integers(0, 3)),
        v=v,
        scale=10 ** draw(st.floats(-2, 1)),
        query_scale=draw(st.sampled_from([1.0, 1e-3, 1e2])),
        decades=draw(st.sampled_from([0.0, 30.0])),
        ties=draw(st.booleans()),
    )
    return ShardedProblem.of(case, draw(st.integers(1, n_points - 1)))


@settings(deadline=None, max_examples=100)
@given(problem=sharded_problems(), trace=st.booleans())
def test_merged_moments(problem, trace):
    assert_matches_oracle(problem, trace=trace)


@settings(deadline=None, max_examples=30)
@given(problem=sharded_problems(), n_directions=st.integers(0, 2))
def test_merged_covariances(problem, n_directions):
    """Two shards return what one process returns with all points, equal on both shards."""
    (queries,) = tensors(torch.float64, problem.queries)
    rng = np.random.RandomState(0)
    (directions,) = tensors(torch.float64, rng.standard_normal((*queries.shape, n_directions)))
    together = problem.posterior().covariance_along(queries, problem.v, directions)
    apart = in_two_threads(
        lambda shards: problem.posteriors(torch.float64, shards).covariance_along(
            queries, problem.v, directions
        )
    )
    # Exponents are off by eps |y|^2 / v, and so are fractions; covariances have size radius^2.
    far = longest(problem.queries) + longest(problem.points)
    slack = 1e-9 + 100 * np.finfo(float).eps * far**2 / problem.v
    radius = max(1.0, longest(problem.points))
    for name, size in {"mean": radius, "trace": radius**2, "along": 4 * radius**2}.items():
        first, second, expected = (getattr(found, name) for found in (*apart, together))
        assert torch.equal(first, second)
        torch.testing.assert_close(first, expected, rtol=0, atol=min(slack, 2.0) * size)
    torch.testing.assert_close(apart[0].log_density, together.log_density, rtol=1e-9, atol=slack)


@pytest.mark.parametrize("trace", [False, True])
def test_both_shards_are_promoted_to_double_together(trace):
    """The first shard alone would stay in float32; the second, of a larger radius, would not."""
    case = problem(1, n_points=6, v=1e-3, scale=0.1, dtype=np.float32)
    case.points[:3] *= 1e-2
    case.points[3:] *= 10
    assert_matches_oracle(ShardedProblem.of(case, 3), trace=trace, dtype=torch.float32)


def test_merged_log_density():
    case = ShardedProblem.of(problem(2, n_points=9), 4)
    (queries,) = tensors(torch.float64, case.queries)
    whole = case.posterior().log_density(queries, 0.1)
    for found in in_two_threads(
        lambda shards: case.posteriors(torch.float64, shards).log_density(queries, 0.1)
    ):
        torch.testing.assert_close(found, whole, rtol=1e-13, atol=1e-13)


def test_tiles_are_those_of_the_largest_shard(monkeypatch):
    """One point beside 500, in tiles of a few rows: the threads must meet equally often."""
    monkeypatch.setattr("skdiffsmooth._engine.tiles._TILE", 3000)
    case = problem(3, n_queries=40, n_points=501, n_nodes=6, v=0.3)
    assert_matches_oracle(ShardedProblem.of(case, 1), trace=True)


def test_no_point_can_be_excluded():
    case = ShardedProblem.of(problem(0), 2)
    (queries,) = tensors(torch.float64, case.queries)
    nodes = Nodes(*tensors(torch.float64, case.offsets, case.node_weights), longest(case.offsets))

    def work(shards):
        posterior, first = case.posteriors(torch.float64, shards), torch.tensor([0, 0, 0])
        with pytest.raises(NotImplementedError, match="exclude"):
            posterior.log_density(queries, 1.0, exclude=first)
        with pytest.raises(NotImplementedError, match="exclude"):
            posterior.moments(queries, 1.0, nodes, exclude=first)

    in_two_threads(work)


def test_weights_are_normalised_over_shards():
    raw = [np.array([1.0, 2.0]), np.array([3.0, 2.0])]
    found = in_two_threads(
        lambda shards: shards.normalize(np.full(2, 0.5), np.zeros((2, 1)), raw[shards.rank] * 1e300)
    )
    np.testing.assert_allclose(found, [[3 / 16, 3 / 16], [5 / 16, 5 / 16]], rtol=1e-12)


# ------------------------------------------------------------------------------ two real processes


@dataclass(frozen=True)
class Scenario:
    """An estimator, and the rows and weights of each process."""

    rows: list
    estimator: object
    weights: list = field(default_factory=lambda: [None, None])

    @property
    def queries(self):
        rows = np.concatenate(self.rows)
        rng = np.random.RandomState(9)
        return rows[rng.randint(len(rows), size=5)] + 0.2 * rng.standard_normal((5, rows.shape[1]))


def ring(seed, n, *, flat=False):
    """A noisy ellipse in three dimensions, its axes unequal so that the hull's are well defined."""
    rng = np.random.RandomState(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    X = np.column_stack([2 * np.cos(angle) ** 3, np.sin(angle), 0.3 * np.cos(3 * angle) ** 2])
    X[:, :2] += 0.05 * rng.standard_normal((n, 2))
    return X @ np.diag([1, 1, 0.0 if flat else 1.0])


FEW = {"n_nodes": 16, "n_levels": 6, "n_steps": 6}
# From so many rows on points are merged, in the processes of the tests.
MANY = 1_000


def scenarios():
    small = FEW
    X, rng = ring(0, 90), np.random.RandomState(1)
    weights = rng.uniform(0.1, 3, 90)
    far = ring(2, 40)
    far[30:] *= 1e-3
    far[30:] += [6.0, 0, 0]
    in_order = np.unique(ring(3, 50), axis=0)
    return {
        "ordinary": Scenario(
            [X[:67], X[67:]],
            SmoothedScoreDiffusion(0.3, 0.5, **small),
            [weights[:67], weights[67:]],
        ),
        "low noise": Scenario(
            [ring(4, 120), ring(5, 200)], SmoothedScoreDiffusion(0.02, 0.4, **small)
        ),
        "hard on one": Scenario([far[:30], far[30:]], SmoothedScoreDiffusion(0.1, 1.0, **small)),
        "one row": Scenario(
            [ring(6, 30, flat=True), ring(7, 1, flat=True)],
            SmoothedScoreDiffusion(0.2, 0.4, **small),
        ),
        "unsmoothed": Scenario([X[:20], X[20:]], SmoothedScoreDiffusion(0.3, 0.0, **small)),
        "gaussian start": Scenario(
            [X[:20], X[20:]],
            ManifoldAdaptedDiffusion(
                *(0.3, 0.5), terminal="gaussian", manifold="pca", n_components=0.9, **small
            ),
        ),
        "stochastic": Scenario(
            [in_order[:35], in_order[35:]],
            ManifoldAdaptedDiffusion(
                *(0.3, 0.5), manifold="pca", n_components=2, solver="euler-maruyama", **small
            ),
        ),
    }


def merged():
    return Scenario([ring(8, MANY + 1), ring(9, 3)], SmoothedScoreDiffusion(0.3, 0.5, **FEW))


METHODS = {
    "score_samples": lambda model, X: model.score_samples(X),
    "grad_log_density": lambda model, X: model.grad_log_density(X),
    "energy": lambda model, X: model.energy(X),
    "sample": lambda model, X: model.sample(20, random_state=3),
}


def cases():
    return [
        (name, method)
        for name, scenario in scenarios().items()
        for method in METHODS
        if method != "score_samples" or scenario.estimator.solver == "auto"
    ]


def results(scenario, model):
    return {
        method: call(model, scenario.queries)
        for method, call in METHODS.items()
        if method != "score_samples" or model.solver == "auto"
    }


def failures(rank):
    """Messages of calls that must fail on both processes, though the fault is on one of them."""
    scenario = scenarios()["ordinary"]
    X, shards = scenario.rows[rank], {"shards": "distributed", **FEW}
    model = SmoothedScoreDiffusion(0.3, 0.5, **shards).fit(X)
    spoilt = X.copy()
    spoilt[0, 0] = np.nan if rank == 1 else 0
    tiny = np.full(len(X), 1e-300 if rank == 1 else 1e300)
    calls = {
        "auto": lambda: SmoothedScoreDiffusion(sigma=0.5, **shards).fit(X),
        "nan": lambda: SmoothedScoreDiffusion(0.3, 0.5, **shards).fit(spoilt),
        "features": lambda: SmoothedScoreDiffusion(0.3, 0.5, **shards).fit(X[:, : 3 - rank]),
        "parameters": lambda: SmoothedScoreDiffusion(0.3, 0.5 + rank, **shards).fit(X),
        "weights": lambda: SmoothedScoreDiffusion(0.3, 0.5, **shards).fit(X, sample_weight=tiny),
        "queries": lambda: model.score_samples(X[:5]),
        "no seed": lambda: model.sample(3),
        "generator": lambda: model.sample(3, random_state=np.random.RandomState(0)),
        "seeds": lambda: model.sample(3, random_state=rank),
        "workers": lambda: SmoothedScoreDiffusion(0.3, 0.5, n_jobs=2, **shards).fit(X),
        "adaptive": lambda: clone(model).set_params(solver="adaptive").fit(X),
        "left out": model.leave_one_out_log_density,
        "solvers": lambda: clone(model).set_params(solver=("heun", "euler")[rank]).fit(X),
        "components": lambda: ManifoldAdaptedDiffusion(
            0.3, 0.5, manifold="pca", n_components=1 + rank, **shards
        ).fit(X),
        "times": lambda: model.grad_log_density(np.zeros((2, 3)), t=1.0 + rank),
        "steps": lambda: (
            copy(model).set_params(n_steps=6 * (1 + rank)).score_samples(np.zeros((2, 3)))
        ),
        "taken apart": lambda: copy(model).set_params(shards=None).score_samples(X),
        "one bandwidth": lambda: SmoothedScoreDiffusion((0.3, -1.0)[rank], 0.5, **shards).fit(X),
        "one device": lambda: SmoothedScoreDiffusion(
            0.3, 0.5, device=("cpu", "abacus")[rank], **shards
        ).fit(X),
        "workers of one": lambda: SmoothedScoreDiffusion(
            0.3, 0.5, n_jobs=(None, 2)[rank], **shards
        ).fit(X),
        "memory of one": lambda: (
            copy(model).set_params(memory_limit=(512, -1)[rank]).score_samples(np.zeros((2, 3)))
        ),
        "device of one": lambda: (
            copy(model).set_params(device=("cpu", "abacus")[rank]).sample(2, random_state=0)
        ),
        "draws of one": lambda: model.sample((2, 0)[rank], random_state=0),
    }
    messages = {}
    for name, call in calls.items():
        with pytest.raises(ValueError, match=r".+") as caught:
            call()
        messages[name] = str(caught.value)
    # The same number in another type is the same parameter.
    SmoothedScoreDiffusion((0.3, np.float64(0.3))[rank], 0.5, **shards).fit(X)
    return messages


def work(rank, folder):
    """Compute in one process what the tests compare, and write it to a file."""
    torch.set_num_threads(1)
    diffusion_settings._LARGEST_EXACT = MANY
    meet = f"file://{folder}/meet"
    patience = timedelta(seconds=TIMEOUT / 2)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=patience)
    pairs_out = []
    factorise = Factoriser.products

    def watch(self, x, v, table, *args, **kwargs):
        found = factorise(self, x, v, table, *args, **kwargs)
        underflows = None if found is None else found.underflows
        pairs_out.append(
            1.0
            if found is None
            else 0.0
            if underflows is None
            else float(underflows.double().mean())
        )
        return found

    Factoriser.products = watch
    found = {}
    for name, scenario in (scenarios() | {"merged": merged()}).items():
        pairs_out.clear()
        model = scenario.estimator.set_params(shards="distributed")
        model.fit(scenario.rows[rank], sample_weight=scenario.weights[rank])
        model = pickle.loads(pickle.dumps(model))
        found[name] = results(scenario, model) | {"pairs_out": list(pairs_out), "model": model}
    found["failures"] = failures(rank)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of each of the two processes."""
    folder = tmp_path_factory.mktemp("processes")
    context = mp.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, folder), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung, f"processes still waited for one another after {TIMEOUT} s"
    assert [process.exitcode for process in processes] == [0, 0]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def expected():
    """The results of one process with all rows."""
    found = {}
    for name, scenario in scenarios().items():
        weights = None if scenario.weights[0] is None else np.concatenate(scenario.weights)
        model = scenario.estimator.fit(np.concatenate(scenario.rows), sample_weight=weights)
        if name != "stochastic":  # whose shards follow one another in the order of a fit
            reorder(model, scenario)
        found[name] = results(scenario, model)
    return found


def reorder(model, scenario):
    """Put a model's points in the order of the processes: draws depend on row numbers."""
    ordered = np.concatenate([np.unique(rows, axis=0) for rows in scenario.rows])
    index = {row.tobytes(): i for i, row in enumerate(model.points_)}
    order = [index[row.tobytes()] for row in ordered]
    arrays = {name: getattr(model.hierarchy_, name)[order] for name in ("points", "weights")}
    hierarchy = replace(model.hierarchy_, **arrays)
    data = replace(model.model_.data, points=model.points_[order], hierarchy=hierarchy)
    model.model_ = replace(model.model_, source=data)


@pytest.mark.parametrize(("name", "method"), cases())
def test_processes_return_what_one_process_returns(name, method, found, expected):
    reference = expected[name][method]
    # Exponents are good to 1e-10 nats; here and on data like these, errors are some 1e-14.
    slack = 1e-11 * np.abs(reference).max()
    for process in found:
        np.testing.assert_allclose(process[name][method], reference, rtol=0, atol=slack)


def test_points_may_be_merged_on_one_process_only(found):
    """Rows are merged on process 0, which has many, and not on process 1; draws use merged points."""
    scenario, model = merged(), found[0]["merged"]["model"]
    scale = model.noise_levels_.terminal_scale
    many, few = (process["merged"]["model"].hierarchy_ for process in found)
    assert many.at(scale)[0] is not many.points
    assert few.at(scale)[0] is few.points
    exact = scenario.estimator.fit(np.concatenate(scenario.rows))
    expected = exact.score_samples(scenario.queries)
    for process in found:
        error = np.abs(process["merged"]["score_samples"] - expected).max()
        # Queries are a few noise scales from the points that count: some times the tolerance.
        assert 1e-9 < error < 0.1


@pytest.mark.parametrize(("name", "method"), [*cases(), ("merged", "sample")])
def test_all_processes_return_the_same(name, method, found):
    np.testing.assert_array_equal(found[0][name][method], found[1][name][method])


def test_factorised_and_direct_pairs_were_merged(found):
    """Otherwise the comparisons above would test only one of the code paths."""
    assert max(found[0]["ordinary"]["pairs_out"]) == 0
    assert any(0 < fraction < 1 for fraction in found[0]["low noise"]["pairs_out"])
    here, there = (process["hard on one"]["pairs_out"] for process in found)
    assert any(a > 0 and b == 0 for a, b in zip(here, there, strict=True))


def test_each_process_keeps_its_rows(found):
    for name, scenario in scenarios().items():
        models = [process[name]["model"] for process in found]
        for model, rows in zip(models, scenario.rows, strict=True):
            assert len(model.points_) == len(rows)
        assert sum(model.weights_.sum() for model in models) == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("auto", "bandwidth='auto' with sigma=0.5 cannot be resolved"),
        ("nan", "NaN"),
        ("features", "features, on process 1 differ"),
        ("parameters", "parameters.* on process 1 differ"),
        ("weights", "sample_weight on process 1 is too small"),
        ("queries", "rows of X.* on process 1 differ"),
        ("no seed", "random_state=None.*integer"),
        ("generator", "random_state=RandomState.*integer"),
        ("seeds", "random_state.* on process 1 differ"),
        ("workers", "n_jobs=2.*start more processes"),
        ("adaptive", "solver='adaptive' cannot be combined with shards.*solver='heun'"),
        ("left out", "leave_one_out_log_density.*subsample"),
        ("solvers", "parameters.* on process 1 differ"),
        ("components", "parameters.* on process 1 differ"),
        ("times", "t on process 1 differ"),
        ("steps", "parameters.* on process 1 differ"),
        ("taken apart", "shards=None, but the model was fitted with shards='distributed'"),
        ("one bandwidth", "bandwidth=-1.0 is out of range"),
        ("one device", "device='abacus'"),
        ("workers of one", "n_jobs=2.*start more processes"),
        ("memory of one", "memory_limit=-1 is out of range"),
        ("device of one", "device='abacus'"),
        ("draws of one", "n_samples=0 is too small"),
    ],
)
def test_all_processes_fail_together(name, message, found):
    for process in found:
        assert re.search(message, process["failures"][name])


# ---------------------------------------------------------------------------------- no process group


@pytest.mark.parametrize("estimator", [SmoothedScoreDiffusion, ManifoldAdaptedDiffusion])
def test_without_a_process_group(estimator):
    with pytest.raises(ValueError, match=r"not initialised.*torchrun.*init_process_group.*None"):
        estimator(0.3, 0.5, shards="distributed").fit(ring(0, 10))


def test_unknown_value():
    with pytest.raises(ValueError, match=r"shards='dask' is not known.*'distributed'.*None"):
        SmoothedScoreDiffusion(0.3, 0.5, shards="dask").fit(ring(0, 10))
    with pytest.raises(TypeError, match=r"shards=2 has type int.*'distributed'"):
        SmoothedScoreDiffusion(0.3, 0.5, shards=2).fit(ring(0, 10))

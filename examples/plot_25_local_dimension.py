"""
The dimension of noisy rows
===========================

**Claim**: the dimension of a manifold, and the noise around it, can be estimated together from the score
of the rows at *all* noise scales, where an estimate at one scale gives the dimension of the noise.
"""

# %%
# A sphere of dimension 2 with noise of .05 in ten dimensions
# -----------------------------------------------------------
# With noise of variance v added to the rows, the score has a local dimension LID(v), here averaged over
# the rows, each without its own kernel. At small v it is the dimension of the noise, ten. It falls
# towards two, but no range is flat: at eighty times the noise's variance it is still above two, and then
# curvature and the size of the sphere matter. So dimension, noise and curvature are fitted to the whole
# curve. The dashed line is the curve that theory gives for dimension 2 and noise .05, which the fit does
# not use.
import matplotlib.pyplot as plt
import numpy as np

from skdiffsmooth.manifolds import intrinsic_dimension

rng = np.random.default_rng(0)


def noisy_sphere(n, k, d, std):
    """Return rows of the k-sphere in R^d with noise."""
    X = rng.normal(size=(n, k + 1))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X @ np.eye(k + 1, d) + std * rng.normal(size=(n, d))


result = intrinsic_dimension(noisy_sphere(2000, 2, 10, 0.05))
v = result.noise_scales**2
theory = 2 + 8 * (1 - (v / (v + 0.05**2)) ** 2)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.errorbar(
    result.noise_scales,
    result.curve,
    2 * result.curve_error,
    fmt="o",
    ms=4,
    label="LID, 2 std. errors",
)
values = f"k = {result.dimension:.2f} $\\pm$ {result.dimension_error:.2f}"
noise = f"noise {result.noise_variance**0.5:.3f}"
axes.plot(result.noise_scales, result.fitted_curve, label=f"fitted: {values}, {noise}")
axes.plot(result.noise_scales, theory, "k--", lw=1, label="theory, k = 2, noise .05")
axes.axhline(2, color="0.8", zorder=0)
axes.set(xscale="log", xlabel="noise scale", ylabel="local dimension", ylim=(0, None))
axes.legend()
print(f"dimension {result.dimension:.2f} +- {result.dimension_error:.2f}")
print(f"noise {result.noise_variance**0.5:.4f}, variance {result.noise_variance:.5f}")

# %%
# Which rows are on what
# ----------------------
# A line and a disk: each row has a value of its own, which is noisy but distinguishes the line from the
# disk on average.
line = np.column_stack([rng.uniform(1, 4, size=600), *np.zeros((2, 600))])
disk = np.column_stack([rng.normal(size=(600, 2)) * 0.4 - [1, 0], np.zeros(600)])
rows = np.concatenate([line, disk]) + 0.01 * rng.normal(size=(1200, 3))
both = intrinsic_dimension(rows)
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
points = axes.scatter(*rows[:, :2].T, c=both.row_dimensions, s=6, vmin=0.5, vmax=2.5)
axes.set(aspect="equal", xlabel="x", ylabel="y")
figure.colorbar(points, label="dimension of the row")
means = both.row_dimensions[:600].mean(), both.row_dimensions[600:].mean()
print(f"mean over the line {means[0]:.2f}, over the disk {means[1]:.2f}")

# %%
# What it cannot do
# -----------------
# Groups of rows look like noise around fewer dimensions. A few hundred rows cannot fill ten dimensions,
# so that the result depends on the model of the curve. For rows in a cube the dimension is too low,
# since rows at its borders have fewer neighbours.
for name, X in {
    "a cloud of 10 dimensions, 300 rows": rng.normal(size=(300, 10)),
    "a cube of 5 dimensions, 2000 rows": rng.uniform(size=(2000, 5)),
}.items():
    other = intrinsic_dimension(X)
    print(f"{name}: {other.dimension:.1f} +- {other.dimension_error:.1f}")
plt.show()

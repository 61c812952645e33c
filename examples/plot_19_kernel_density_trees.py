"""
Why scikit-learn's KernelDensity is no reference here
=====================================================

**The claim**: at bandwidths that are small against the distances between rows, as they are in
many columns, the trees of ``sklearn.neighbors.KernelDensity`` return wrong log-densities, also
with their default tolerances of zero (scikit-learn issues 7492 and 27186, open when this was
written). One leaf for all rows makes them right.

Two thirds of scikit-learn's digits, 64 columns; log-densities of the rest by the tree, by a tree
of a single leaf, and by ``KDESampler``, which compares every pair.
"""

# %%
# Errors of single rows
# ---------------------
import matplotlib.pyplot as plt
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity

from skdiffsmooth import KDESampler

train, test = train_test_split(load_digits().data, test_size=1 / 3, random_state=0)
best = KDESampler(bandwidth="loo").fit(train).bandwidth_
bandwidths = best * np.geomspace(0.5, 2, 9)
exact, tree, leaf = [], [], []
for h in bandwidths:
    exact.append(KDESampler(h).fit(train).score_samples(test))
    tree.append(KernelDensity(bandwidth=h).fit(train).score_samples(test))
    single = KernelDensity(bandwidth=h, leaf_size=len(train))
    leaf.append(single.fit(train).score_samples(test))
exact, tree, leaf = np.array(exact), np.array(tree), np.array(leaf)

print(f"scikit-learn {sklearn.__version__}, {len(train)} rows; differences from the exact nats")
print("bandwidth   exact mean   tree: mean     worst   wrong by 0.1   one leaf: worst")
for k, h in enumerate(bandwidths):
    error = tree[k] - exact[k]
    print(
        f"{h:9.2f}   {exact[k].mean():10.2f}   {error.mean():+10.3f}   {np.abs(error).max():7.1e}   "
        f"{np.mean(np.abs(error) > 0.1):12.0%}   {np.abs(leaf[k] - exact[k]).max():15.1e}"
    )

# %%
# How it changes the choice of bandwidth
# --------------------------------------
# Bandwidths are chosen by held-out likelihood. The tree's errors are mostly upwards, and
# largest at small bandwidths: the chosen bandwidth is too small, and the reported likelihood is one
# that no kernel density estimate has.
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
middle = 4  # the bandwidth of highest leave-one-out likelihood
axes[0].plot(exact[middle], tree[middle], ".", markersize=3)
axes[0].axline((exact[middle].mean(),) * 2, slope=1, color="0.5", linewidth=0.8)
axes[0].set(xlabel="exact log-density (nats)", ylabel="the tree's")
axes[0].set_title(f"each row, bandwidth {best:.2f} (leave-one-out)", fontsize=10)
for values, style, name in (
    (exact, "o-", "exact"),
    (leaf, "k+", "one leaf"),
    (tree, "x--", "tree"),
):
    axes[1].semilogx(bandwidths, values.mean(axis=1), style, label=name)
axes[1].set(xlabel="bandwidth", ylabel="mean held-out log-density")
axes[1].set_xticks([1, 2, 4], ["1", "2", "4"])
axes[1].minorticks_off()
axes[1].legend()
by_exact, by_tree = (int(np.argmax(values.mean(axis=1))) for values in (exact, tree))
for name, k in (("exact densities", by_exact), ("tree", by_tree)):
    print(
        f"best bandwidth by the {name}: {bandwidths[k]:.2f}, where the tree reports "
        f"{tree[k].mean():.1f} nats and true are {exact[k].mean():.1f}"
    )

# %%
# What is not wrong
# -----------------
# At bandwidths where many rows contribute the tree agrees to many digits: the last lines of the table.
# Every kernel density estimate that this project compares with is a ``KDESampler``, whose tests compare
# it with plain loops.

"""How many pixels a small convolutional network depends on, and how many a network without places.

    python benchmarks/local_networks.py
    python benchmarks/local_networks.py planted    # scores of known sigma and size, with errors

Both are trained on 660 digits for some CPU seconds, from three seeds each. `implied_smoothing` compares
their scores with local scores of patches of each size: the closest for each seed, and the distances.
The last columns compare the denoised images of held-out digits with those of `LocalScoreDiffusion`: r^2
is one less the mean squared difference over the variance of the network's pixels about their means, and
errors are mean squared ones, in variances of the noise. docs/evidence/local.md has the table.
"""

import sys
from itertools import pairwise

import numpy as np
import torch
from _common import header, row
from local import digits

from skdiffsmooth import LocalScoreDiffusion, SmoothedScoreDiffusion
from skdiffsmooth.datasets import make_circle
from skdiffsmooth.model_selection import implied_smoothing

SIDE = 8
SCALES = (0.05, 0.1, 0.2, 0.4, 0.8)


class Convolutions(torch.nn.Module):
    """Three layers of 3 x 3 filters: a pixel depends on 7 x 7."""

    def __init__(self, side=SIDE, channels=24):
        super().__init__()
        self.side = side
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(2, channels, 3, padding=1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(channels, channels, 3, padding=1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, x, log_scale):
        images = x.view(-1, 1, self.side, self.side)
        return self.layers(
            torch.cat([images, log_scale.view(-1, 1, 1, 1).expand_as(images)], 1)
        ).flatten(1)


class Dense(torch.nn.Module):
    """Two hidden layers, in which all pixels are alike."""

    def __init__(self, width=256):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(SIDE**2 + 1, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, SIDE**2),
        )

    def forward(self, x, log_scale):
        return self.layers(torch.cat([x, log_scale], 1))


class Denoiser:
    """A network that is trained to denoise, scaled as by Karras et al. (arXiv:2206.00364)."""

    def __init__(self, make, seed, n_batches=1200, noise_scales=(0.03, 1.2)):
        self.make, self.seed, self.n_batches, self.range = make, seed, n_batches, noise_scales

    def fit(self, X):
        torch.manual_seed(self.seed)
        self.mean_, self.std_ = X.mean(axis=0), np.sqrt(X.var(axis=0).mean())
        self.covariance_ = np.cov(X.T, bias=True)
        self.network_ = self.make()
        rows = torch.tensor(X - self.mean_, dtype=torch.float32)
        optimizer = torch.optim.Adam(self.network_.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_batches)
        for _ in range(self.n_batches):
            clean = rows[torch.randint(len(rows), (64,))]
            scale = torch.exp(torch.empty(64, 1).uniform_(*np.log(self.range)))
            noised = clean + scale * torch.randn_like(clean)
            weight = (scale**2 + self.std_**2) / (scale * self.std_) ** 2
            loss = (weight * (self._denoised(noised, scale) - clean) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    def _denoised(self, x, scale):
        total, std = scale**2 + self.std_**2, self.std_
        output = self.network_(x / total.sqrt(), scale.log() / 2)
        return x * std**2 / total + output * scale * std / total.sqrt()

    @torch.no_grad()
    def denoise(self, x, v):
        rows = torch.tensor(x - self.mean_, dtype=torch.float32)
        scale = torch.full((len(rows), 1), np.sqrt(v), dtype=torch.float32)
        return self._denoised(rows, scale).double().numpy() + self.mean_

    def sample(self, n, random_state, n_steps=60):
        """Return n images by Heun's method, from the Gaussian of noised rows at the widest scale."""
        low, high = self.range
        scales = np.geomspace(high, low, n_steps + 1)
        variances, axes = np.linalg.eigh(self.covariance_)
        noise = np.random.RandomState(random_state).standard_normal((n, len(variances)))
        x = self.mean_ + (noise * np.sqrt(variances + high**2)) @ axes.T
        for start, end in pairwise(scales):
            slope = (x - self.denoise(x, start**2)) / start
            ahead = x + (end - start) * slope
            slope = (slope + (ahead - self.denoise(ahead, end**2)) / end) / 2
            x = x + (end - start) * slope
        return x


def agreement(network, local, held_out):
    """Return r^2 of the local denoiser for the network's images, and both errors, at each scale."""
    figures = []
    for scale in SCALES:
        noised = held_out + scale * np.random.default_rng(1).standard_normal(held_out.shape)
        images = network.denoise(noised, scale**2)
        others = noised + scale**2 * local.grad_log_density(noised, scale**2)
        r2 = 1 - np.mean((images - others) ** 2) / images.var(axis=0).mean()
        errors = [np.mean((m - held_out) ** 2) / scale**2 for m in (images, others)]
        figures.append((r2, *errors))
    return np.array(figures)


def run():
    """Print one line for each network and noise scale; errors are over the three seeds."""
    train, held_out = digits(0)
    local = LocalScoreDiffusion(0.01, image_shape=(SIDE, SIDE)).fit(train)
    sizes = ("1 pixel", "3 x 3", "5 x 5", "7 x 7", "whole image")
    header("network", "noise scale", "closest", *sizes, "r^2", "error, network", "error, local")
    for name, make in (("convolutions", Convolutions), ("dense", Dense)):
        closest, distances, figures = [], [], []
        for seed in range(3):
            network = Denoiser(make, seed).fit(train)
            result = implied_smoothing(
                network,
                train,
                "size",
                image_shape=(SIDE, SIDE),
                noise_scales=SCALES,
                n_samples=160,
            )
            closest.append(result.closest)
            distances.append(result.distances)
            figures.append(agreement(network, local, held_out))
        mean, error = np.mean(distances, axis=0), np.std(distances, axis=0, ddof=1) / np.sqrt(3)
        for k, scale in enumerate(SCALES):
            pairs = [f"{m:.3f} ± {e:.3f}" for m, e in zip(mean[k], error[k], strict=True)]
            values = [f"{value:.2f}" for value in np.mean(figures, axis=0)[k]]
            row(name, scale, ", ".join(str(found[k]) for found in closest), *pairs, *values)


def with_errors(model, seed, share):
    """Return the score of a model with normal errors, a share of its standard deviation."""
    rng = np.random.default_rng(1000 + seed)  # Not the noise of the rows

    def score(x, v):
        exact = model.grad_log_density(x, v)
        return exact + share * exact.std() * rng.standard_normal(x.shape)

    return score


def planted():
    """Print what `implied_smoothing` finds of scores of a known sigma or size of patches."""
    header("rows", "planted", "errors", "seeds", "found", "mean error, or seeds that find it")
    scales = [0.15, 0.4]
    for sigma in (0.05, 0.13, 0.3):
        for share in (0.0, 0.1):
            X, found = make_circle(12, spacing="even"), []
            for seed in range(5):
                model = SmoothedScoreDiffusion(0.1, sigma, n_nodes=300, random_state=100 + seed)
                score = with_errors(model.fit(X), seed, share)
                result = implied_smoothing(score, X, noise_scales=scales, random_state=seed)
                found.append(result.overall)
            errors = np.abs(np.array(found) / sigma - 1)
            values = f"{np.mean(found):.4f} ± {np.std(found, ddof=1):.4f}"
            row(
                "circle",
                f"sigma {sigma}",
                share,
                len(found),
                values,
                f"{100 * errors.mean():.1f} %",
            )
    for size in (1, 3, 5, 7):
        found = []
        for seed in range(20):
            X, images = digits(seed)[0][:60], {"image_shape": (SIDE, SIDE)}
            settings = {"size": size, "width": 0, "terminal_scale": 0.6, "n_levels": 3} | images
            score = with_errors(LocalScoreDiffusion(0.1, **settings).fit(X), seed, 0.2)
            result = implied_smoothing(
                score, X, "size", noise_scales=scales, n_samples=100, random_state=seed, **images
            )
            found.append(result.overall)
        row("digits", f"size {size}", 0.2, 20, sorted(set(found)), found.count(size))


if __name__ == "__main__":
    planted() if sys.argv[1:] == ["planted"] else run()

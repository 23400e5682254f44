"""The dVAE as a whole: which encoders and decoders a configuration has, and which of them learn in which step."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from handaug.models.dvae.config import DvaeConfig
from handaug.models.dvae.modalities import modality
from handaug.models.dvae.networks import ImageDecoder, ImageEncoder, Posterior, VectorDecoder, VectorEncoder

__all__ = ["DVAE", "Batch"]

Batch = dict[str, Tensor]
"""Observations of N rows by modality, images (N, C, H, W) in -1..1 and vectors (N, dims); `side` (N,), -1 left, 1
right; `weight/NAME` (N,) where the rows of a modality count other than once."""


class DVAE(nn.Module):
    """Encoders and decoders over one latent z = [z_y1, ..., z_yN, z_u].

    Attributes:
        factor_encoders: q(z_yi | y_i) by factor, and q(z_u | x) as "u".
        decoders: p(x | z) and p(y_i | z_yi) by modality. With z_u, and for cross-modal, every decoder sees the whole z.
        embedders: q(z | x) and q(z | x^) by modality.
    """

    def __init__(self, config: DvaeConfig, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.spans: dict[str, slice] = {}
        start = 0
        for name, dims in config.blocks:
            self.spans[name] = slice(start, start + dims)
            start += dims
        self.latent = start

        def encoder(name: str, latent: int, side_given: bool) -> nn.Module:
            if modality(name).image:
                return ImageEncoder(channels, latent, side_given=side_given)
            return VectorEncoder(modality(name).dims, latent)

        def decoder(name: str, latent: int) -> nn.Module:
            if modality(name).image:
                return ImageDecoder(latent, channels, size, config.width)
            return VectorDecoder(latent, modality(name).dims)

        self.factor_encoders = nn.ModuleDict({name: encoder(name, dims, False) for name, dims in config.factors})
        if config.z_u:
            self.factor_encoders["u"] = ImageEncoder(channels, config.z_u)
        whole = config.method == "cross-modal" or config.z_u > 0
        self.own_block = {name: None if whole or name == config.x else name for name, _ in config.targets}
        self.decoders = nn.ModuleDict()
        for name, _ in config.targets:
            block = self.own_block[name]
            self.decoders[name] = decoder(name, self.latent if block is None else dict(config.blocks)[block])
        self.embedders = nn.ModuleDict({name: encoder(name, self.latent, config.side_given) for name in config.embed})

    def encode_factor(self, name: str, batch: Batch) -> Posterior:
        """q(z_yi | y_i), or q(z_u | x) for "u"."""
        posterior: Posterior = self.factor_encoders[name](batch["image" if name == "u" else name])
        return posterior

    def encode_factors(self, batch: Batch) -> Posterior:
        """q(z | y_1, ..., y_N[, x]): the factors' posteriors side by side."""
        parts = [self.encode_factor(name, batch) for name, _ in self.config.blocks]
        return torch.cat([mean for mean, _ in parts], 1), torch.cat([log for _, log in parts], 1)

    def embed(self, name: str, batch: Batch) -> Posterior:
        """q(z | x) or q(z | x^)."""
        encoder = self.embedders[name]
        given = isinstance(encoder, ImageEncoder) and encoder.side_given
        posterior: Posterior = encoder(batch[name], batch["side"]) if given else encoder(batch[name])
        return posterior

    def decode(self, name: str, z: Tensor) -> Tensor:
        """Mean of p(x | z) or p(y_i | z_yi), in the network's range."""
        block = self.own_block[name]
        mean: Tensor = self.decoders[name](z if block is None else z[:, self.spans[block]])
        return mean

    def learners(self, stage: str) -> Iterator[nn.Module]:
        """The modules that learn in a stage: Algorithm 1 lines 6 and 12, Algorithm 2 lines 7, 11 and 18."""
        if self.config.method == "cross-modal":
            yield from (self.embedders, self.decoders)
        elif stage == "disentangle":
            yield from (self.factor_encoders, self.decoders)
        elif stage == "embed":
            yield self.embedders
        else:
            for name, _ in self.config.factors:
                yield from (self.factor_encoders[name], self.decoders[name])

    def enter(self, stage: str) -> None:
        """Set modules to learn or to stand still: fixed ones keep their batch statistics too."""
        self.eval().requires_grad_(False)
        for module in self.learners(stage):
            module.train().requires_grad_(True)

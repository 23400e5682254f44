"""The objectives of Yang & Yao 2019, Eqs. 1 to 8, as named terms to be minimised.

Every term is a mean over the rows of a batch of a sum over dimensions, in nats: -log p without its constant, for a
Gaussian of unit variance in the unit of `modalities`; and the closed-form KL divergence from N(0, I). One sample of z
is drawn for each row and shared by all its decoders. What maximises an ELBO here minimises

    sum over targets of lambda * nll + beta * KL.

The noise step of Algorithm 2, as we read it: lines 5 and 10 fix [mu, sigma] by one x and then pass over all y_1, so
z_noise belongs to another row than y_1. Drawn for the same row it would be the z_u that Eq. 6 sampled already. Here it
is the posterior of the batch's next row. The step minimises -log p(y_1 | z_y1, z_noise) alone, as lines 8 to 11 have
it: with a KL of weight beta = 100 the pose term of weight 0.01 would be outvoted and z_y1 emptied.
"""

import torch
from torch import Tensor

from handaug.models.dvae.config import DvaeConfig
from handaug.models.dvae.modalities import modality
from handaug.models.dvae.model import DVAE, Batch

__all__ = ["gaussian_kl", "gaussian_nll", "pair_at", "sample", "stage_terms", "total_loss"]


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each dimension, nats, same shape as the inputs.

    Example:
        >>> gaussian_kl(torch.tensor([1.0]), torch.tensor([0.0])).item()
        0.5
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def gaussian_nll(predicted: Tensor, target: Tensor, unit: float) -> Tensor:
    """-log p(target) for unit variance in the likelihood's unit, without the constant: (N,) nats.

    Args:
        predicted: (N, ...) means in the network's range.
        target: Same shape.
        unit: Units of the likelihood per 1 of the network's range.
    """
    return 0.5 * unit**2 * (predicted.float() - target.float()).square().flatten(1).sum(1)


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mean + sigma * noise, noise ~ N(0, I) of the same shape."""
    return mean + (0.5 * log_variance).exp() * noise


def stage_terms(model: DVAE, stage: str, batch: Batch, noise: Tensor, pair: int | None = None) -> dict[str, Tensor]:
    """The terms of one step of Algorithm 1 or 2, or of Eq. 1.

    Args:
        model: In the state of `model.enter(stage)`.
        stage: One of `STAGES`.
        batch: Rows with every modality that the stage reads.
        noise: (N, latent) standard normal.
        pair: cross-modal with alternating training only: which (input, output) pair this step trains.

    Returns:
        Unweighted terms by name: ".../nll/TARGET" and ".../kl/BLOCK".
    """
    if stage == "disentangle":
        return _disentangle(model, batch, noise)
    if stage == "noise":
        return _noise(model, batch, noise)
    if pair is None:
        terms: dict[str, Tensor] = {}
        for source in model.config.embed:
            terms |= _embed(model, source, [name for name, _ in model.config.targets], batch, noise)
        return terms
    source, target = pair_at(model.config, pair)
    return _embed(model, source, [target], batch, noise)


def pair_at(config: DvaeConfig, step: int) -> tuple[str, str]:
    """The input and output that alternating training takes at a step: all pairs in turn."""
    source, target = divmod(step % (len(config.embed) * len(config.targets)), len(config.targets))
    return config.embed[source], config.targets[target][0]


def total_loss(terms: dict[str, Tensor], config: DvaeConfig) -> Tensor:
    """Minus the ELBO of Eq. 1, 2, 4, 6 or 8 with the weights of the configuration."""
    weights = dict(config.targets)
    parts = [(name.split("/"), term) for name, term in terms.items()]
    return torch.stack([(weights[p[-1]] if p[-2] == "nll" else config.beta) * term for p, term in parts]).sum()


def _disentangle(model: DVAE, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Eq. 2, or Eq. 6 with z_u."""
    mean, log_variance = model.encode_factors(batch)
    z = sample(mean, log_variance, noise)
    terms = {f"disentangle/nll/{name}": _nll(model, name, z, batch, None) for name, _ in model.config.targets}
    kl = gaussian_kl(mean, log_variance)
    for block, span in model.spans.items():
        terms[f"disentangle/kl/{block}"] = kl[:, span].sum(1).mean()
    return terms


def _noise(model: DVAE, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Algorithm 2, lines 8 to 11."""
    parts = [sample(*model.encode_factor(name, batch), noise[:, model.spans[name]]) for name, _ in model.config.factors]
    with torch.no_grad():
        mean, log_variance = model.encode_factor("u", batch)
        other = sample(mean.roll(-1, 0), log_variance.roll(-1, 0), noise[:, model.spans["u"]])
    z = torch.cat([*parts, other], dim=1)
    return {f"noise/nll/{name}": _nll(model, name, z, batch, None) for name, _ in model.config.factors}


def _embed(model: DVAE, source: str, targets: list[str], batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Eq. 4 where `source` is x, Eq. 8 where it is another modality, Eq. 1 where the decoders learn as well.

    A row that knows y_2 alone has the bound of its own model, lambda E log p(y_2 | z_y2) - beta KL(q(z_y2 | x^) || p):
    what is not observed, and its block of z, are integrated out. Their KL would only pull the encoder to the prior.
    """
    mean, log_variance = model.embed(source, batch)
    z = sample(mean, log_variance, noise)
    known = batch.get(f"weight/{source}")
    terms = {f"{source}/nll/{name}": _nll(model, name, z, batch, known) for name in targets}
    kl = _paid(model, targets, batch, gaussian_kl(mean, log_variance)).sum(1)
    return {**terms, f"{source}/kl/z": (kl if known is None else kl * known).mean()}


def _paid(model: DVAE, targets: list[str], batch: Batch, kl: Tensor) -> Tensor:
    """The KL (N, latent) of the blocks from which something that the row knows is decoded, 0 for the others."""
    every = torch.ones(len(kl), device=kl.device)
    parts = []
    for block, span in model.spans.items():
        decoded = [name for name in targets if model.own_block[name] in (None, block)]
        weight = torch.stack([batch.get(f"weight/{name}", every) for name in decoded]).amax(0)
        parts.append(kl[:, span] * weight[:, None])
    return torch.cat(parts, dim=1)


def _nll(model: DVAE, name: str, z: Tensor, batch: Batch, known: Tensor | None) -> Tensor:
    """Mean over the rows; rows whose target or source is unknown count as 0."""
    rows = gaussian_nll(model.decode(name, z), batch[name], modality(name).unit)
    for weight in (known, batch.get(f"weight/{name}")):
        rows = rows if weight is None else rows * weight
    return rows.mean()

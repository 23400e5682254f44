"""The losses of Li et al. 2019, Eqs. 1 to 7, and every decision the paper leaves open.

Scale. Each term is divided so that it is about 1 where nothing has been learned, so that the weights compare like
with like at any image size, sigma and width:

* heatmaps: balanced L1, see `handaug.models.heatmaps.heatmap_l1`. All-zero maps score 1.
* images: mean L1 per pixel over 0.1, the order of a hand image's contrast.
* codes: mean L1 over the mean magnitude of the (fixed) target.

Sign of Eq. 3. It is printed to be maximised while Eq. 7 is minimised, and as printed alpha 2 would train the
discriminator against itself. We minimise -L_D over the discriminator alone, with an Adam of its own, and give the
generator the non-saturating -E[log D(I_hat)], which is -L_G. As in Eq. 3 the discriminator sees reconstructions;
mixed images are left to the cycle.

What is frozen. Written x, y for the two images of a pair and I(xy) for the pose of x in the appearance of y:

* (b) decodes p and a with the live D_I; p is detached ("Pose Detach") except in phase 6.
* (c), (d) decode with frozen copies of D_I and D_p (section 3.5). Their gradient reaches I(xy), and so the D_I and E_I
  that made it.
* "Pose Estimator Detach" of Table 4: in phases 3 and 4 no parameter of the pose estimator learns from mixed images, so
  there the trunk (which is part of E_p) and E_p encode I(xy) as frozen copies; only E_I's own last block learns from
  dual-img and cycle-img. In phases 5 and 6 trunk, E_p and D_p learn from mixed images; D_I stays frozen in (c).
* The targets p(x), a(y) of Eq. 5 are constants.

Places. At small batches and few steps Eq. 1 alone does not learn: on 1,600 rendered poses it stood at the mean pose
after 400 steps of 32 images, and a network that had learned more without it fell back to all-zero maps (44 px) within
300 steps of it, because zero is the median of a joint whose place is uncertain. So Eq. 1 is joined by the cross-entropy
of each map's softmax with its target, which is ours and not in the paper (`alpha_place`; 0 leaves it out, the balance
of the L1, ours too, stays). It
rewards the likeliest place, however uncertain, and reads the maps at ten times their height, so that a map that suits
it has a peak of about 1. Both act from the first step: after a warm-up by the cross-entropy alone the maps had any
height, and Eq. 1 then destroyed what they knew. Eq. 6 gets the same companion (`alpha_cycle_place`): with L1 alone it
stood at 1, the value of empty maps, from its first step to its last, and mixed images kept the pose of y.

Both orders. I(xy) and I(yx) are made for every pair, and each gives both its cycle images, as section 3.4 defines them.

Paired data (phase 7). Section 4.4 compares with a method that learns from two images of one pose and says no more than
that (its reference list is not at hand). We build it as the cross-domain disentanglement of Gonzalez-Garcia et al.
2018 does: x and x' show one pose; D_I(p(x'), a(x)) must give x (`cross_image`); p(x) and p(x') must agree
(`dual_pose`); and what both share must not be in a: a decoder of its own tries to draw x' from a(x) alone
(`leak_loss`), and the encoder gets its gradient reversed (`reversal`). Pose labels, Eqs. 1 to 3 and the Pose Detach
are as in model 2, so that the methods differ in what they are told about pairs alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.disentangle.model import SelfDisentangler, frozen
from handaug.models.heatmaps import heatmap_l1, place_cross_entropy

__all__ = ["discriminator_loss", "generator_terms", "leak_loss", "paired_terms", "total_loss"]

_IMAGE_SCALE = 0.1
_SLOPE = 10.0


def _image_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Eqs. 2 and 4."""
    return (predicted.float() - target).abs().mean() / _IMAGE_SCALE


def _code_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 5; the target is a constant."""
    fixed = target.detach().float()
    return (predicted.float() - fixed).abs().mean() / fixed.abs().mean().clamp_min(1e-6)


def _place(maps: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """Cross-entropy of the labelled joints' places, nats."""
    entropy = place_cross_entropy(maps * _SLOPE, target)
    return (entropy * labelled).sum() / labelled.sum().clamp_min(1.0)


def discriminator_loss(discriminator: nn.Module, real: Tensor, generated: Tensor) -> Tensor:
    """-L_D of Eq. 3, to be minimised by the discriminator alone; 2 log 2 where it cannot tell.

    Args:
        discriminator: Gives logits.
        real: (N, C, H, W) in [0, 1].
        generated: Same shape, detached here.
    """
    real_logits = discriminator(real).float()
    generated_logits = discriminator(generated.detach()).float()
    # -log sigmoid(z) = softplus(-z) and -log(1 - sigmoid(z)) = softplus(z), without overflow.
    return functional.softplus(-real_logits).mean() + functional.softplus(generated_logits).mean()


def generator_terms(
    model: SelfDisentangler,
    discriminator: nn.Module | None,
    images: Tensor,
    heatmaps: Tensor,
    labelled: Tensor,
    sigma: float,
    phase: int,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """All terms of Eq. 7 but the discriminator's own, unweighted.

    Args:
        model: The networks.
        discriminator: None leaves the adversarial term out.
        images: (N, C, H, W) in [0, 1], N even; image i is paired with image (i + N/2) mod N.
        heatmaps: (N, J, H, W) targets.
        labelled: (N, J), 1 where the joint is labelled.
        sigma: Of the targets, pixels.
        phase: Row of Table 4.

    Returns:
        Terms by name, and the reconstructions I_hat (None in phase 1).
    """
    features = model.trunk(images)
    pose = model.pose_encoder(features)
    maps = model.pose_decoder(pose)
    terms = {"place": _place(maps, heatmaps, labelled), "pose": heatmap_l1(maps, heatmaps, labelled, sigma)}
    if phase == 1:
        return terms, None

    appearance = model.appearance_encoder(features)
    code = pose if phase == 6 else pose.detach()  # "Pose Detach"
    reconstructed = model.image_decoder(code, appearance)
    terms["image"] = _image_l1(reconstructed, images)
    if discriminator is not None:
        terms["gan"] = functional.softplus(-frozen(discriminator)(reconstructed).float()).mean()
    if phase == 2:
        return terms, reconstructed

    half = len(images) // 2
    other_appearance = appearance.roll(half, 0)
    mixed = model.image_decoder(code, other_appearance)  # (b): row i is I(xy) with x = i, y = its partner

    detached = phase in (3, 4)  # "Pose Estimator Detach"
    mixed_features = (frozen(model.trunk) if detached else model.trunk)(mixed)
    mixed_pose = (frozen(model.pose_encoder) if detached else model.pose_encoder)(mixed_features)
    mixed_appearance = model.appearance_encoder(mixed_features)

    decode_image = frozen(model.image_decoder)  # (c)
    again_x = decode_image(mixed_pose, appearance)
    again_y = decode_image(code.roll(half, 0), mixed_appearance)
    terms["cycle_image"] = (_image_l1(again_x, images) + _image_l1(again_y, images.roll(half, 0))) / 2
    terms["dual_pose"] = _code_l1(mixed_pose, pose)
    terms["dual_appearance"] = _code_l1(mixed_appearance, other_appearance)

    decode_pose = frozen(model.pose_decoder) if detached else model.pose_decoder  # (d)
    mixed_maps = decode_pose(mixed_pose)
    terms["cycle_place"] = _place(mixed_maps, heatmaps, labelled)
    terms["cycle_pose"] = heatmap_l1(mixed_maps, heatmaps, labelled, sigma)
    return terms, reconstructed


def leak_loss(leak: nn.Module, appearance: Tensor, partners: Tensor) -> Tensor:
    """How well `leak` draws the other image of each pair from the appearance code alone; it is to minimise this.

    Args:
        leak: Takes two codes, as D_I does; the pose code is all zeros.
        appearance: (N, D, H/16, W/16), detached here.
        partners: (N, C, H, W) in [0, 1].
    """
    fixed = appearance.detach()
    return _image_l1(leak(torch.zeros_like(fixed), fixed), partners)


def paired_terms(
    model: SelfDisentangler,
    discriminator: nn.Module | None,
    leak: nn.Module,
    images: Tensor,
    heatmaps: Tensor,
    labelled: Tensor,
    sigma: float,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """All terms of phase 7 but those of the two adversaries, unweighted.

    Args:
        model: The networks.
        discriminator: None leaves the adversarial term out.
        leak: See `leak_loss`.
        images: (N, C, H, W) in [0, 1], N even; image i shows the pose of image (i + N/2) mod N.
        heatmaps: (N, J, H, W) targets.
        labelled: (N, J), 1 where the joint is labelled.
        sigma: Of the targets, pixels.

    Returns:
        Terms by name, the reconstructions I_hat, and the appearance codes.
    """
    features = model.trunk(images)
    pose, appearance = model.pose_encoder(features), model.appearance_encoder(features)
    maps = model.pose_decoder(pose)
    code, half = pose.detach(), len(images) // 2
    reconstructed = model.image_decoder(code, appearance)
    crossed = model.image_decoder(code.roll(half, 0), appearance)
    drawn = frozen(leak)(torch.zeros_like(appearance), appearance)
    terms = {
        "place": _place(maps, heatmaps, labelled),
        "pose": heatmap_l1(maps, heatmaps, labelled, sigma),
        "image": _image_l1(reconstructed, images),
        "cross_image": _image_l1(crossed, images),
        "dual_pose": _code_l1(pose, pose.roll(half, 0)),
        "reversal": -_image_l1(drawn, images.roll(half, 0)),
    }
    if discriminator is not None:
        terms["gan"] = functional.softplus(-frozen(discriminator)(reconstructed).float()).mean()
    return terms, reconstructed, appearance


def total_loss(terms: dict[str, Tensor], config: DisentangleConfig) -> Tensor:
    """Eq. 7 without the discriminator's term, which has its own optimiser; in phase 7 likewise."""
    weights = {
        "place": config.alpha_place,
        "pose": 1.0,
        "image": config.alpha_image,
        "gan": config.alpha_gan,
        "cycle_image": config.alpha_cycle_image,
        "dual_pose": config.alpha_dual_pose,
        "dual_appearance": config.alpha_dual_appearance,
        "cycle_place": config.alpha_cycle_place,
        "cycle_pose": config.alpha_cycle_pose,
        "cross_image": config.alpha_cross,
        "reversal": config.alpha_reversal,
    }
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

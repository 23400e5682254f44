"""Disentangled variational autoencoders of hands: Yang & Yao 2019, "Disentangling Latent Hands for Image Synthesis and
Pose Estimation", and the cross-modal VAE that they start from.

`config` says what there is, `losses` holds the objectives, `train` the algorithms, `api` a trained model. docs/dvae.md
tells what the paper leaves open.
"""

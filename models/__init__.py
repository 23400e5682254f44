"""Networks, losses, metrics and training loops: disentanglers and estimators."""

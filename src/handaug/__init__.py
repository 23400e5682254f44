"""handaug: paired synthetic hands, disentangled remixing, and a pose gain measured against fair baselines."""

from importlib.metadata import version

__version__ = version("handaug")

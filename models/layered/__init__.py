"""handaug's own disentangler: pictures as layers, trained on true renders of every mix."""

from handaug.models.layered.api import LayeredDisentangler, load_layered
from handaug.models.layered.config import LayeredConfig, default_layered_config
from handaug.models.layered.train import train_layered

__all__ = ["LayeredConfig", "LayeredDisentangler", "default_layered_config", "load_layered", "train_layered"]

"""Images of one size and number of channels, or none of the work starts."""

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset

__all__ = ["check_fits"]


def check_fits(data: HandDataset, size: tuple[int, int], channels: int, what: str) -> None:
    """Check the images of a dataset.

    Args:
        data: The dataset.
        size: Height and width that are asked for, in pixels.
        channels: Channels that are asked for.
        what: Who asks for them, in the message.

    Raises:
        InputError: They differ.
    """
    if data.size != size or data.channels != channels:
        raise InputError(
            f"{data.path}: has {data.size[0]} x {data.size[1]} px with {data.channels} channels, {what} has "
            f"{size[0]} x {size[1]} px with {channels}; give data of that size"
        )

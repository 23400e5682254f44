"""The content checksum: what the file says, not how HDF5 happens to store it."""

import hashlib

import h5py
import numpy as np

from handaug.data_specs.progress import Advance
from handaug.data_specs.schema import FIELDS

__all__ = ["content_checksum"]

_BLOCK_BYTES = 8 << 20
_BLOCK_ROWS = 1024
"""HDF5 holds several kB for each chunk of a selection, and pixels are chunked by rows: many small images in one block
would take hundreds of MB.
"""


def content_checksum(file: h5py.File, advance: Advance = lambda rows: None) -> str:
    """SHA-256 over every field and the attributes that define the content.

    Independent of chunking, compression and library version; reads in blocks of at most 1,024 rows or about 8 MiB.

    Args:
        file: An open file of schema 1.
        advance: Told of rows whose images, nearly all of the bytes, have been read.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in ("schema", "kind", "config", "seed"):
        digest.update(f"{name}={file.attrs.get(name)}\n".encode())
    for path in FIELDS:
        if path not in file:
            continue
        dataset = file[path]
        digest.update(f"{path} {dataset.dtype.str} {dataset.shape}\n".encode())
        row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
        rows = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // row_bytes))
        for start in range(0, dataset.shape[0], rows):
            block = dataset[start : start + rows]
            digest.update(np.ascontiguousarray(block).tobytes())
            if path == "images":
                advance(len(block))
    return digest.hexdigest()

"""How local descriptors are stored in a map: half precision, 8 bits a value, or product-quantised.

Restored descriptors of the last two are L2-normalised again, so that no code needs to store a length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from etr_ros.errors import MapError
from etr_ros.types import FloatArray

KINDS = ("half", "int8", "pq")
CODEBOOK = "codebook.f32"
TRAINING_LOCALS = 65536
LEAST_TRAINING_LOCALS = 39 * 256
_PQ_VALUES = 2  # descriptor values in one byte
_SEED = 1234


@dataclass(frozen=True, eq=False)
class LocalCodes:
    """One way to store descriptors of `dim` values; "pq" needs a `codebook` of `codebook_shape`, see `train`."""

    kind: str
    dim: int
    codebook: FloatArray | None = None

    @property
    def file(self) -> str:
        """Name of the file of the map that holds the codes."""
        return {"half": "descriptors.f16", "int8": "descriptors.i8", "pq": "descriptors.pq"}[self.kind]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a stored value."""
        return np.dtype({"half": "<f2", "int8": "i1", "pq": "u1"}[self.kind])

    @property
    def values(self) -> int:
        """Stored values of one descriptor."""
        return self.dim // _PQ_VALUES if self.kind == "pq" else self.dim

    @property
    def codebook_shape(self) -> tuple[int, int, int]:
        """Subvectors, entries, values."""
        return self.dim // _PQ_VALUES, 256, _PQ_VALUES

    @property
    def is_trained(self) -> bool:
        """Whether descriptors can be stored yet."""
        return self.kind != "pq" or self.codebook is not None

    def train(self, descriptors: FloatArray) -> LocalCodes:
        """With the codebook of descriptors (N, D): product quantisation, Jegou et al., PAMI 2011.

        The same descriptors give the same codebook. Raises MapError when there are too few.
        """
        if len(descriptors) < LEAST_TRAINING_LOCALS:
            raise MapError(
                f"product quantisation needs {LEAST_TRAINING_LOCALS} local features to train on, there are "
                f"{len(descriptors)}: build the map with memory.descriptors=int8"
            )
        quantizer = faiss.ProductQuantizer(self.dim, self.values, 8)
        quantizer.cp.seed, quantizer.cp.niter = _SEED, 10
        quantizer.train(np.ascontiguousarray(descriptors[:TRAINING_LOCALS], np.float32))
        centroids = faiss.vector_to_array(quantizer.centroids)
        return LocalCodes(self.kind, self.dim, centroids.reshape(self.codebook_shape).astype(np.float32))

    def encode(self, descriptors: FloatArray) -> NDArray[Any]:
        """Unit descriptors (N, D) as they are stored (N, values)."""
        if self.codebook is not None:
            quantizer = faiss.ProductQuantizer(self.dim, self.values, 8)
            faiss.copy_array_to_vector(np.ascontiguousarray(self.codebook).ravel(), quantizer.centroids)
            codes: NDArray[np.uint8] = quantizer.compute_codes(np.ascontiguousarray(descriptors, np.float32))
            return codes
        if self.kind == "half":
            return descriptors.astype(self.dtype)
        largest = np.maximum(np.abs(descriptors).max(axis=1, keepdims=True, initial=0), 1e-12)
        scaled: NDArray[np.int8] = np.round(descriptors * (127 / largest)).astype(np.int8)
        return scaled

    def decode(self, codes: NDArray[Any]) -> FloatArray:
        """Stored descriptors (N, values) back in float32 (N, D)."""
        if self.kind == "half":
            writable = torch.from_numpy(np.require(codes, requirements="W"))
            restored: FloatArray = writable.float().numpy()  # NumPy takes ten times as long
            return restored
        values = codes.astype(np.float32)
        if self.codebook is not None:
            values = self.codebook[np.arange(self.values), codes].reshape(len(codes), self.dim)
        unit: FloatArray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        return unit

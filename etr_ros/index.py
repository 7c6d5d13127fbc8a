"""Retrieval: nearest places by global descriptor, with FAISS.

The metric is the inner product of L2-normalised vectors.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import MapError
from etr_ros.types import FloatArray

HNSW_LINKS = 32
HNSW_BUILD_BREADTH = 80
HNSW_SEARCH_BREADTH = 128
PQ_BITS = 8
TRAINING_SEED = 1234


def build_index(kind: str, vectors: FloatArray) -> tuple[faiss.Index, dict[str, int]]:
    """An index of type `kind` ("exact", "hnsw", "ivf-pq") over `vectors` (N, G), and its training parameters.

    Small sets are trained with what they have: the number of inverted lists is sqrt(N), 39 vectors or more in each.
    """
    count, size = vectors.shape
    parameters: dict[str, int] = {}
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(size, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_BREADTH
        index.hnsw.efSearch = HNSW_SEARCH_BREADTH
        parameters = {"links": HNSW_LINKS, "build_breadth": HNSW_BUILD_BREADTH, "search_breadth": HNSW_SEARCH_BREADTH}
    elif kind == "ivf-pq" and count >= 39 * 2**PQ_BITS:
        lists = max(1, min(int(count**0.5), count // 39))
        subvectors = max(m for m in (64, 32, 16, 8, 4, 2, 1) if size % m == 0)
        quantizer = faiss.IndexFlatIP(size)
        index = faiss.IndexIVFPQ(quantizer, size, lists, subvectors, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = index.pq.cp.seed = TRAINING_SEED
        index.train(vectors)
        index.nprobe = max(1, lists // 8)
        parameters = {"lists": lists, "subvectors": subvectors, "bits": PQ_BITS, "probes": index.nprobe}
    elif kind == "ivf-pq":
        raise MapError(
            f"an ivf-pq index needs at least {39 * 2**PQ_BITS} places to train on, the map has {count}: "
            "build it with retrieval.index=exact"
        )
    else:
        index = faiss.IndexFlatIP(size)
    index.add(vectors)
    return index, parameters


def read_index(path: Path, places: int, size: int) -> faiss.Index:
    """The index in a file. Raises MapError when it is damaged or not over `places` vectors of `size` values."""
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise MapError(f"the FAISS index {path} is damaged ({_first_line(error)}): build the map again") from error
    if index.ntotal != places or index.d != size:
        raise MapError(
            f"the FAISS index {path} holds {index.ntotal} vectors of {index.d} values, "
            f"the manifest says {places} of {size}: build the map again"
        )
    return index


def search(
    index: faiss.Index, query: FloatArray, top_k: int, places_before: int | None = None
) -> tuple[NDArray[np.int64], FloatArray]:
    """The `top_k` places most similar to `query` (G,), best first: ids (K,) and cosines (K,).

    K is smaller than `top_k` when the map is. With `places_before`, only places with a smaller id are searched.
    """
    parameters = None
    if places_before is not None:
        if places_before <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        selector = faiss.IDSelectorRange(0, places_before)
        if isinstance(index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(HNSW_SEARCH_BREADTH, top_k))
        elif isinstance(index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
        else:
            parameters = faiss.SearchParameters(sel=selector)
    cosines, ids = index.search(query[None], min(top_k, index.ntotal), params=parameters)
    found = ids[0] >= 0
    return ids[0][found], cosines[0][found]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__

"""Retrieval: nearest places by global descriptor, with FAISS.

The metric is the inner product of L2-normalised vectors. A compressed index proposes places, and these are put in order
by their descriptors on disk: what is found is as good as exact, what stays in memory is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
from numpy.typing import NDArray

from etr_ros.errors import MapError
from etr_ros.mapped import MappedArrays
from etr_ros.types import FloatArray

EXACT, HNSW, IVF_PQ = "exact", "hnsw", "ivf-pq"
GLOBALS = "globals.f16"
EXACT_UP_TO = 20_000  # places that are compared in 3 ms, see docs/scale.md

HNSW_LINKS = 32
HNSW_BUILD_BREADTH = 80
HNSW_SEARCH_BREADTH = 512
PQ_BITS = 4
MAX_SUBVECTORS = 128
COARSE_FROM = 2**18  # places; more are compared by codes of half the size, in half the time
TRAINING_PER_LIST = 40
LEAST_TRAINING_PLACES = 39 * 256
BREADTH = 200  # places proposed for exact comparison, for 20 asked for
RECALL_AT, RECALL, RECALL_QUERIES = 20, 0.95, 200
_SEED = 1234
_BLOCK = 16384


def require_search_parameters(module: Any) -> None:
    """Raises ImportError for a FAISS that cannot search a part of an index; Ubuntu 22.04 has such a one."""
    if not hasattr(module, "SearchParameters"):
        raise ImportError(f"FAISS 1.7.3 or newer is needed, not {module.__version__}: pip install faiss-cpu")


require_search_parameters(faiss)


def choose(kind: str, places: int) -> str:
    """The index for a map of this size: `kind`, unless that is "auto"."""
    if kind != "auto":
        return kind
    return EXACT if places <= EXACT_UP_TO else IVF_PQ


def build_index(kind: str, vectors: NDArray[np.float16]) -> tuple[faiss.Index | None, dict[str, float]]:
    """An index of type "exact", "hnsw" or "ivf-pq" over `vectors` (N, G), and its parameters.

    The exact index needs no file: it is None. The same vectors give the same index, whether it is built at once or
    extended (`extend_index`), as ivf-pq is trained on the first power of two of them. Raises MapError when there are
    too few to train on.
    """
    size = vectors.shape[1]
    if kind == EXACT:
        return None, {}
    if kind == HNSW:
        index = faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_fp16, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD_BREADTH, HNSW_SEARCH_BREADTH
        index.train(vectors[:1].astype(np.float32))
        sizes = (HNSW_LINKS, HNSW_BUILD_BREADTH, HNSW_SEARCH_BREADTH)
        parameters: dict[str, float] = dict(zip(("links", "build_breadth", "search_breadth"), sizes, strict=True))
    else:
        index, parameters = _trained_ivf_pq(vectors)
    extend_index(index, vectors)
    return index, parameters


def extend_index(index: faiss.Index, vectors: NDArray[np.float16]) -> None:
    """Add those of all `vectors` (N, G) that the index does not hold yet."""
    if isinstance(index, faiss.IndexHNSW):
        _extend_hnsw(index, vectors)
        return
    with _each_alone():
        for start in range(index.ntotal, len(vectors), _BLOCK):
            index.add(vectors[start : start + _BLOCK].astype(np.float32))


def is_outgrown(kind: str, index: str, places_before: int, places: int) -> bool:
    """Whether a map that grows is to be indexed anew: with another kind, or trained on more."""
    if choose(kind, places) != index:
        return True
    return index == IVF_PQ and _training_places(places) != _training_places(places_before)


def _training_places(places: int) -> int:
    return 1 << (places.bit_length() - 1)


def _trained_ivf_pq(vectors: NDArray[np.float16]) -> tuple[faiss.Index, dict[str, float]]:
    """Product quantisation in inverted lists (Jegou et al., PAMI 2011), of codes that are compared in registers.

    As many lists are searched as `RECALL` asks for. It holds the vectors that it was trained on.
    """
    count, size = vectors.shape
    if count < LEAST_TRAINING_PLACES:
        raise MapError(
            f"an ivf-pq index needs at least {LEAST_TRAINING_PLACES} places to train on, the map has {count}: "
            "build it with retrieval.index=exact"
        )
    known = vectors[: _training_places(count)]
    lists = 1 << (int(len(known) ** 0.5).bit_length() - 1)
    most = min(size // (4 if len(known) < COARSE_FROM else 8), MAX_SUBVECTORS)
    subvectors = max(m for m in range(1, most + 1) if size % m == 0)
    quantizer = faiss.IndexFlatIP(size)
    index = faiss.IndexIVFPQFastScan(quantizer, size, lists, subvectors, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = _SEED
    index.cp.niter = 10
    step = max(1, len(known) // max(TRAINING_PER_LIST * lists, LEAST_TRAINING_PLACES))
    index.train(known[::step].astype(np.float32))
    extend_index(index, known)
    recall = _choose_probes(index, known)
    parameters = {"lists": lists, "probes": index.nprobe, "subvectors": subvectors, "bits": PQ_BITS}
    return index, parameters | {f"recall@{RECALL_AT}": recall}


def _choose_probes(index: faiss.IndexIVF, vectors: NDArray[np.float16]) -> float:
    """Search as few lists as give `RECALL` of the exact nearest to some of the vectors; the recall that was measured.

    Where not even all lists do, all are searched.
    """
    rows = np.unique(np.linspace(0, len(vectors) - 1, RECALL_QUERIES).astype(np.int64))
    queries = vectors[rows].astype(np.float32)
    exact = _exact_neighbours(vectors, queries, rows)
    low, high = 1, index.nlist
    while low < high:
        index.nprobe = (low + high) // 2
        if _recall(index, vectors, queries, rows, exact) >= RECALL:
            high = index.nprobe
        else:
            low = index.nprobe + 1
    index.nprobe = low
    return round(_recall(index, vectors, queries, rows, exact), 4)


def _recall(
    index: faiss.IndexIVF,
    vectors: NDArray[np.float16],
    queries: FloatArray,
    rows: NDArray[np.int64],
    exact: list[set[int]],
) -> float:
    read = partial(_rows, vectors)
    found = [
        set(nearest(read, index, query, RECALL_AT + 1)[0].tolist()) - {row}
        for query, row in zip(queries, rows.tolist(), strict=True)
    ]
    return float(np.mean([len(a & b) / RECALL_AT for a, b in zip(found, exact, strict=True)]))


def _exact_neighbours(vectors: NDArray[np.float16], queries: FloatArray, rows: NDArray[np.int64]) -> list[set[int]]:
    """The nearest `RECALL_AT` of each query, which are themselves `rows` of the vectors."""
    best = np.full((len(queries), RECALL_AT), -np.inf, np.float32)
    ids = np.zeros((len(queries), RECALL_AT), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        cosines = queries @ vectors[start : start + _BLOCK].astype(np.float32).T
        inside = (rows >= start) & (rows < start + _BLOCK)
        cosines[inside, rows[inside] - start] = -np.inf
        both = np.hstack([best, cosines])
        top = np.argpartition(-both, RECALL_AT, axis=1)[:, :RECALL_AT]
        known = np.hstack([ids, np.broadcast_to(np.arange(start, start + cosines.shape[1]), cosines.shape)])
        best, ids = np.take_along_axis(both, top, 1), np.take_along_axis(known, top, 1)
    return [set(row) for row in ids.tolist()]


def _rows(vectors: NDArray[np.float16], ids: NDArray[np.int64]) -> NDArray[np.float16]:
    return vectors[ids]


def _extend_hnsw(index: faiss.IndexHNSW, vectors: NDArray[np.float16]) -> None:
    """One after the other on one thread, each with the level it would have had in a build at once."""
    generator = faiss.RandomGenerator(_SEED)
    for _ in range(index.ntotal):
        generator.rand_float()
    index.hnsw.rng = generator
    with _one_thread():
        for start in range(index.ntotal, len(vectors), _BLOCK):
            for vector in vectors[start : start + _BLOCK].astype(np.float32):
                index.add(vector[None])


@contextmanager
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def _each_alone() -> Iterator[None]:
    """The list of a vector does not depend on those that are added with it: matrix products round otherwise."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 2 * _BLOCK
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


@dataclass(frozen=True, eq=False)
class Retriever:
    """Finds places among the descriptors of a map, which stay on disk: `GLOBALS` of `arrays`.

    `index` proposes; without one all are compared.
    """

    index: faiss.Index
    arrays: MappedArrays
    is_exact: bool

    @staticmethod
    def open(path: Path | None, arrays: MappedArrays, places: int, size: int) -> Retriever:
        """With the index in a file, or None to compare all. Raises MapError when the file is damaged or of others."""
        if path is not None:
            return Retriever(_read_index(path, places, size), arrays, is_exact=False)
        index = faiss.IndexScalarQuantizer(size, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, places, _BLOCK):
            index.add(arrays.read(GLOBALS, slice(start, start + _BLOCK)).astype(np.float32))
        return Retriever(index, arrays, is_exact=True)

    def search(
        self, query: FloatArray, top_k: int, places_before: int | None = None
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """As `search`; cosines are those of the descriptors on disk."""
        if self.is_exact:
            return search(self.index, query, top_k, places_before)
        return nearest(partial(self.arrays.read, GLOBALS), self.index, query, top_k, places_before)


def nearest(
    read: Callable[[NDArray[np.int64]], NDArray[Any]],
    index: faiss.Index,
    query: FloatArray,
    top_k: int,
    places_before: int | None = None,
) -> tuple[NDArray[np.int64], FloatArray]:
    """What `index` proposes, `BREADTH` for 20 asked for, put in order by the vectors that `read` gives by ids."""
    proposed, _ = search(index, query, max(BREADTH, BREADTH * top_k // 20), places_before)
    proposed = np.sort(proposed)
    cosines = in_single(read(proposed)) @ query
    best = np.argsort(-cosines, kind="stable")[:top_k]
    return proposed[best], cosines[best]


def in_single(x: NDArray[Any]) -> FloatArray:
    """(N, G) float32 of values in half precision, which OpenCV converts in a quarter of NumPy's time."""
    if x.dtype != np.float16 or not x.size:
        return x.astype(np.float32)
    return np.asarray(cv2.convertFp16(np.ascontiguousarray(x).view(np.int16)), np.float32).reshape(x.shape)


def search(
    index: faiss.Index, query: FloatArray, top_k: int, places_before: int | None = None
) -> tuple[NDArray[np.int64], FloatArray]:
    """The `top_k` places most similar to `query` (G,) by an index alone, best first: ids (K,) and cosines (K,).

    K is smaller than `top_k` when the map is. With `places_before`, only places with a smaller id are searched.
    """
    breadth = max(HNSW_SEARCH_BREADTH, top_k)
    parameters = faiss.SearchParametersHNSW(efSearch=breadth) if isinstance(index, faiss.IndexHNSW) else None
    if places_before is not None:
        if places_before <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        selector = faiss.IDSelectorRange(0, places_before)
        if isinstance(index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
        elif isinstance(index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
        else:
            parameters = faiss.SearchParameters(sel=selector)
    cosines, ids = index.search(query[None], min(top_k, index.ntotal), params=parameters)
    found = ids[0] >= 0
    return ids[0][found], cosines[0][found]


def _read_index(path: Path, places: int, size: int) -> faiss.Index:
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise MapError(f"the FAISS index {path} is damaged ({_first_line(error)}): build the map again") from error
    if index.ntotal != places or index.d != size:
        raise MapError(
            f"the FAISS index {path} holds {index.ntotal} vectors of {index.d} values, "
            f"the manifest says {places} of {size}: build the map again"
        )
    return index


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__

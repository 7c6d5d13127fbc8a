"""Indexes: which one for a map of which size, what the compressed ones find, and that growing changes nothing."""

from __future__ import annotations

import types
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etr_ros import index as retrieval
from etr_ros.errors import MapError
from etr_ros.index import Retriever, build_index, choose, extend_index, is_outgrown
from etr_ros.mapped import MappedArrays

DIM = 64
COUNT = 10_300


def test_a_faiss_that_is_too_old_is_named_with_what_to_do() -> None:
    old = types.SimpleNamespace(__version__="1.7.2")
    with pytest.raises(ImportError, match=r"not 1\.7\.2: pip install faiss-cpu"):
        retrieval.require_search_parameters(old)


def places_of_drives(count: int, seed: int = 0) -> np.ndarray:
    """(N, 64) half-precision unit vectors: groups of eight that are alike."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(-(-count // 8), DIM)), 8, axis=0)[:count]
    vectors = centres + 0.5 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def many(kind: str) -> int:
    """Enough places to train on, where the index is trained."""
    return COUNT if kind == "ivf-pq" else 1500


def opened(folder: Path, vectors: np.ndarray, index: faiss.Index | None) -> Retriever:
    (folder / retrieval.GLOBALS).write_bytes(vectors.tobytes())
    arrays = MappedArrays(folder)
    arrays.open(retrieval.GLOBALS, np.dtype("<f2"), vectors.shape)
    file = None
    if index is not None:
        file = folder / "index.faiss"
        faiss.write_index(index, str(file))
    return Retriever.open(file, arrays, *vectors.shape)


def test_the_size_of_the_map_chooses_the_index() -> None:
    assert choose("auto", 1) == choose("auto", retrieval.EXACT_UP_TO) == "exact"
    assert choose("auto", retrieval.EXACT_UP_TO + 1) == "ivf-pq"
    assert choose("hnsw", 1) == "hnsw"
    assert retrieval.EXACT_UP_TO >= retrieval.LEAST_TRAINING_PLACES  # auto never asks for what cannot be trained


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf-pq"])
def test_every_index_finds_what_is_nearest_and_only_earlier_places_when_asked(kind: str, tmp_path: Path) -> None:
    count = many(kind)
    vectors = places_of_drives(count)
    retriever = opened(tmp_path, vectors, build_index(kind, vectors)[0])
    step = count // 100
    queries = places_of_drives(count, seed=1)[:100].astype(np.float32) + vectors[: 100 * step : step].astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = 0
    for query in queries:
        exact = vectors.astype(np.float32) @ query
        ids, cosines = retriever.search(query, 10)
        np.testing.assert_allclose(cosines, exact[ids], atol=1e-3)
        assert list(cosines) == sorted(cosines, reverse=True)
        found += len(set(ids.tolist()) & set(np.argsort(-exact)[:10].tolist()))
    assert found >= (1000 if kind == "exact" else 950)
    ids, _ = retriever.search(vectors[count - 1].astype(np.float32), 20, places_before=count // 2)
    assert len(ids) and ids.max() < count // 2


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
def test_an_index_that_grew_is_the_one_built_at_once(kind: str) -> None:
    count = many(kind)
    vectors = places_of_drives(count)
    grown, _ = build_index(kind, vectors[: count - 300])
    assert not is_outgrown(kind, kind, count - 300, count)
    grown = faiss.deserialize_index(faiss.serialize_index(grown))
    extend_index(grown, vectors[: count - 200])
    extend_index(grown, vectors)
    at_once, _ = build_index(kind, vectors)
    assert np.array_equal(faiss.serialize_index(grown), faiss.serialize_index(at_once))


def test_a_map_that_doubles_is_indexed_anew() -> None:
    assert is_outgrown("auto", "exact", 10, retrieval.EXACT_UP_TO + 1)
    assert not is_outgrown("auto", "exact", 10, 100)
    assert is_outgrown("ivf-pq", "ivf-pq", 16_383, 16_384)
    assert not is_outgrown("ivf-pq", "ivf-pq", 16_384, 32_767)
    assert not is_outgrown("hnsw", "hnsw", 10, 10**6)


def test_the_recall_of_a_compressed_index_is_measured_when_it_is_built() -> None:
    index, parameters = build_index("ivf-pq", places_of_drives(COUNT))
    assert isinstance(index, faiss.IndexIVF)
    assert parameters["probes"] == index.nprobe <= parameters["lists"]
    assert parameters["recall@20"] >= 0.95 or index.nprobe == index.nlist


def test_too_few_places_to_train_on() -> None:
    with pytest.raises(MapError, match=r"at least 9984 places .* the map has 9983.* retrieval\.index=exact"):
        build_index("ivf-pq", places_of_drives(9983))


@given(st.integers(0, 8), st.integers(1, 70), st.integers(0, 10**6))
def test_half_precision_is_converted_exactly(rows: int, columns: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**16, (rows, columns)).astype(np.uint16)
    x = bits.view(np.float16)
    x[~np.isfinite(x)] = 6e-8  # the smallest there is
    converted = retrieval.in_single(x)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, x.astype(np.float32))

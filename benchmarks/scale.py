"""Measure retrieval and opening of maps of 1 000 to 1 000 000 places, into a table.

    python benchmarks/scale.py --maps MAP [MAP ...] --work DIR --output scale.md

No one has a million places: the global descriptors of real MAPs are made into more (`MadeUp` says how, and the page
compares their statistics). Half of the queries are real descriptors that the made-up ones did not come from, half are
made-up views of spots in the map. Times are processor times of one thread, as another process may want the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etr_ros import index as retrieval
from etr_ros.config import Config
from etr_ros.database import FORMAT_VERSION, MANIFEST, MapInfo, PlaceMap, Rig, layout
from etr_ros.map_writer import METRIC
from etr_ros.place_table import NAMES, ROW, ROWS
from etr_ros.types import Features

VIEWS = 12  # places at one spot
SPOTS = 1600  # made at a time
LOCALS = 512
TOP_K = 20
FloatArray = NDArray[np.float32]


class MadeUp:
    """Descriptors with the statistics of real ones.

    A spot is a mix of two real descriptors (0.5 to 1 of the first) plus noise of their covariance; the views of a spot
    differ from it by 0.2 to 2 times the difference between two real neighbours of a drive.
    """

    def __init__(self, real: FloatArray, differences: FloatArray) -> None:
        self.real, self.differences = real, differences
        values, vectors = np.linalg.eigh(np.cov(real.T))
        self.root = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)

    def spots(self, seed: int) -> FloatArray:
        """(SPOTS, VIEWS + 1, G): the last view of each is for queries."""
        rng = np.random.default_rng(seed)
        first, second = rng.integers(len(self.real), size=(2, SPOTS))
        share = rng.uniform(0.5, 1, (SPOTS, 1)).astype(np.float32)
        noise = rng.standard_normal((SPOTS, self.real.shape[1]), np.float32) @ self.root.T
        spot = unit(share * self.real[first] + (1 - share) * self.real[second] + 0.35 * noise)
        of = rng.integers(len(self.differences), size=(SPOTS, VIEWS + 1))
        far = rng.uniform(0.2, 2, (SPOTS, VIEWS + 1, 1)).astype(np.float32)
        return unit(spot[:, None] + far * self.differences[of])


def unit(x: FloatArray) -> FloatArray:
    """L2-normalised rows."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def read_real(maps: list[Path]) -> tuple[FloatArray, FloatArray]:
    """The descriptors (N, G) of maps, each once, and the differences between neighbours."""
    seen: dict[bytes, None] = {}
    differences = []
    for path in maps:
        place_map = PlaceMap(path)
        vectors = place_map.global_descriptors(np.arange(len(place_map)))
        if vectors[0].tobytes() in seen:
            continue
        seen |= dict.fromkeys(row.tobytes() for row in vectors)
        differences.append(np.diff(vectors, axis=0))
    real = np.frombuffer(b"".join(seen), np.float32).reshape(len(seen), -1)
    return unit(real), np.concatenate(differences)


def fill(path: Path, places: int, base: FloatArray, made_up: MadeUp, queries: int) -> FloatArray:
    """Write `places` descriptors, real ones first; views of the same spots as queries."""
    asked: list[FloatArray] = []
    with path.open("wb") as file:
        file.write(base[:places].astype("<f2").tobytes())
        left, seed = places - len(base[:places]), 1
        with tqdm(total=places, initial=places - left, desc="descriptors", unit=" places", disable=None) as bar:
            while left > 0 or sum(map(len, asked)) < queries:
                spots = made_up.spots(seed)
                views = spots[:, :VIEWS].reshape(-1, base.shape[1])[:left]
                file.write(views.astype("<f2").tobytes())
                used = len(views) // VIEWS if left > 0 else SPOTS
                asked.append(spots[: max(used, 1), VIEWS][:: max(1, used // 25)][:25])
                left, seed = left - len(views), seed + 1
                bar.update(len(views))
    return np.concatenate(asked)[:queries]


def exact_neighbours(vectors: NDArray[np.float16], queries: FloatArray) -> NDArray[np.int64]:
    """(Q, TOP_K) by comparing all."""
    best = np.full((len(queries), TOP_K), -np.inf, np.float32)
    ids = np.zeros((len(queries), TOP_K), np.int64)
    for start in range(0, len(vectors), 16384):
        cosines = queries @ vectors[start : start + 16384].astype(np.float32).T
        both = np.hstack([best, cosines])
        known = np.hstack([ids, np.broadcast_to(np.arange(start, start + cosines.shape[1]), cosines.shape)])
        top = np.argpartition(-both, TOP_K, axis=1)[:, :TOP_K]
        best, ids = np.take_along_axis(both, top, 1), np.take_along_axis(known, top, 1)
    return ids


def make_map(path: Path, globals_file: Path, places: int, example: MapInfo, kind: str) -> dict[str, float]:
    """A map of these descriptors whose locals are holes in files of the true size; seconds and bytes."""
    folder = path / "data-scale"
    folder.mkdir(parents=True, exist_ok=True)
    globals_file.replace(folder / retrieval.GLOBALS)
    size = example.features.global_dim
    vectors = np.memmap(folder / retrieval.GLOBALS, np.float16, mode="r", shape=(places, size))
    start, chosen = time.process_time(), retrieval.choose(kind, places)
    index, parameters = retrieval.build_index(chosen, vectors)
    seconds = time.process_time() - start
    info = dataclasses.replace(
        example,
        map_id="scale",
        path=str(path),
        format_version=FORMAT_VERSION,
        places=places,
        locals=places * LOCALS,
        sessions=("made up",),
        rigs=(Rig(),),
        index=chosen,
        index_parameters=parameters,
        metric=METRIC,
        config=Config().to_dict(),
    )
    if index is not None:
        faiss.write_index(index, str(folder / info.index_file))
    rows = np.zeros(places, ROW)
    rows["stamp_ns"], rows["width"], rows["height"] = np.arange(places) * 10**9, 640, 480
    rows["name_end"], rows["pose"] = np.arange(1, places + 1) * 8, np.nan
    (folder / ROWS).write_bytes(rows.tobytes())
    (folder / NAMES).write_bytes("".join(f"{i:08d}" for i in range(places)).encode())
    (folder / "offsets.i64").write_bytes((np.arange(places + 1, dtype="<i8") * LOCALS).tobytes())
    for name, (dtype, shape) in layout(info).items():
        if not (folder / name).exists():
            with (folder / name).open("wb") as file:
                file.truncate(int(np.prod(shape)) * dtype.itemsize)
    names = [*layout(info), NAMES, *([info.index_file] if info.index_file else [])]
    values = dataclasses.asdict(dataclasses.replace(info, files={n: (folder / n).stat().st_size for n in names}))
    del values["path"]
    (path / MANIFEST).write_text(json.dumps(values))
    index_bytes = (
        info.files.get(info.index_file or "", 0) or (folder / (info.index_file or retrieval.GLOBALS)).stat().st_size
    )
    return {"build_s": seconds, "index_bytes": index_bytes / places}


def query_map(path: Path, queries_file: Path, ceiling_mb: int) -> dict[str, object]:
    """In a process of its own: open the map, answer, read the locals of what was found."""
    faiss.omp_set_num_threads(1)
    before, start = resident_bytes(), time.process_time()
    place_map = PlaceMap(path, ceiling_mb)
    opened_s = time.process_time() - start
    milliseconds, found = [], []
    for query in np.load(queries_file):
        features = Features(*[np.empty(0)] * 4, (640, 480), query)  # type: ignore[arg-type]
        start = time.thread_time()
        places, _ = place_map.search(features, TOP_K)
        milliseconds.append(1e3 * (time.thread_time() - start))
        found.append([place.place_id for place in places])
        for place in places:
            place_map.view(place.place_id)
    return {
        "open_s": opened_s,
        "median_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
        "resident_mb": (resident_bytes() - before) / 1e6,
        "process_mb": resident_bytes() / 1e6,
        "found": found,
    }


def resident_bytes() -> int:
    """Of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def statistics(vectors: FloatArray, views: int) -> dict[str, float]:
    """Of (N, G), of which `views` after each other are of one spot (0: a drive)."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(len(vectors), size=(2, 20000))
    random = (vectors[a] * vectors[b]).sum(1)
    follow = (vectors[1:] * vectors[:-1]).sum(1)
    follow = follow[np.arange(len(follow)) % views != views - 1] if views else follow
    some = rng.choice(len(vectors), 300, replace=False)
    cosines = vectors[some] @ vectors.T
    cosines[np.arange(300), some] = -1
    nearest = -np.sort(-cosines, axis=1)
    values = np.linalg.eigvalsh(np.cov(vectors.T))
    return {
        "cosine of two at random, mean": float(random.mean()),
        "the same, standard deviation": float(random.std()),
        "cosine of two that follow each other, median": float(np.median(follow)),
        "cosine to the nearest, median": float(np.median(nearest[:, 0])),
        "cosine to the 5th nearest, median": float(np.median(nearest[:, 4])),
        "cosine to the 20th nearest, median": float(np.median(nearest[:, 19])),
        "dimensions in use (participation ratio)": float(values.sum() ** 2 / (values**2).sum()),
    }


def page(result: dict, command: str) -> str:
    """The numbers as Markdown."""
    lines = [
        f"Measured on {dt.date.today().isoformat()}, processor time of one thread, {result['queries']} queries, by",
        "",
        f"    python benchmarks/scale.py {command}",
        "",
        "| places | index | median ms | p95 ms | Recall@20 real | made up | index B | build s | open s | RAM MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['places']} | {row['index']} | {row['median_ms']:.2f} | {row['p95_ms']:.2f} | {row['recall_real']:.3f} "
        f"| {row['recall_made_up']:.3f} | {row['index_bytes']:.0f} | {row['build_s']:.1f} | {row['open_s']:.3f} "
        f"| {row['resident_mb']:.0f} |"
        for row in result["rows"]
    ]
    lines += ["", f"Median time grows with places to the power {result['exponent']:.2f}.", ""]
    lines += ["| statistics | real | made up |", "| --- | --- | --- |"]
    real, made_up = result["real"], result["made_up"]
    lines += [f"| {name} | {real[name]:.3f} | {made_up[name]:.3f} |" for name in real]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and write the page and, beside it, the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="real maps of one configuration")
    parser.add_argument("--work", type=Path, required=True, help="folder for the maps (2.5 GB)")
    parser.add_argument("--output", type=Path, required=True, help="page to write (Markdown)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], metavar="PLACES")
    parser.add_argument("--queries", type=int, default=200, help="half of them real (default: 200)")
    parser.add_argument("--index", default="auto", help="retrieval.index (default: auto)")
    parser.add_argument("--ceiling-mb", type=int, default=0, help="memory.ceiling_mb (default: 0)")
    parser.add_argument("--query-only", nargs=2, type=Path, metavar=("MAP", "QUERIES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.query_only:
        print(json.dumps(query_map(*args.query_only, args.ceiling_mb)))
        return 0
    faiss.omp_set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    real, differences = read_real(args.maps)
    held = np.zeros(len(real), bool)
    held[np.random.default_rng(7).choice(len(real), args.queries // 2, replace=False)] = True
    made_up, example = MadeUp(real[~held], differences), PlaceMap(args.maps[0]).info
    rows = []
    for places in args.sizes:
        file, path, queries_file = args.work / "globals", args.work / f"map-{places}", args.work / "queries.npy"
        asked = np.concatenate([real[held], fill(file, places, real[~held], made_up, args.queries // 2)])
        np.save(queries_file, asked)
        measured = make_map(path, file, places, example, args.index)
        vectors = np.memmap(
            path / "data-scale" / retrieval.GLOBALS, np.float16, mode="r", shape=(places, len(asked[0]))
        )
        exact = exact_neighbours(vectors, asked)
        command = [sys.executable, __file__, "--maps", path, "--work", args.work, "--output", args.output]
        command += ["--ceiling-mb", str(args.ceiling_mb), "--query-only", path, queries_file]
        answered = json.loads(subprocess.check_output(command))
        recalls = np.array(
            [len(set(a) & set(b)) / TOP_K for a, b in zip(answered.pop("found"), exact.tolist(), strict=True)]
        )
        info = PlaceMap(path).info
        told = ", ".join(f"{name} {value:g}" for name, value in info.index_parameters.items())
        half = args.queries // 2
        rows.append(
            {"places": places, "index": f"{info.index} ({told})" if told else info.index, **measured, **answered}
            | {"recall_real": float(recalls[:half].mean()), "recall_made_up": float(recalls[half:].mean())}
        )
        print(rows[-1], flush=True)
    logs = np.log([[row["places"], row["median_ms"]] for row in rows])
    result = {
        "rows": rows,
        "queries": args.queries,
        "exponent": float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]) if len(rows) > 1 else float("nan"),
        "real": statistics(real, 0),
        "made_up": statistics(made_up.spots(0)[:, :VIEWS].reshape(-1, real.shape[1])[: len(real)], VIEWS),
    }
    args.output.write_text(page(result, shlex.join(sys.argv[1:])), encoding="utf-8")
    args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

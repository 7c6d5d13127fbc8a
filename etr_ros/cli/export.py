"""`etr export`: networks as ONNX files."""

from __future__ import annotations

import argparse
from pathlib import Path

from etr_ros.cli.options import add_config_options, config_from

PARTS = ("extractor", "reranker")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "export",
        help="write the networks as ONNX files, for TensorRT and other run times",
        description="Write the network of extractor.name (xfeat or superpoint), or the ETR of rerank.name, as an ONNX "
        "file with dynamic shapes. Needs the packages onnx and onnxscript. docs/onnx.md says what goes in and out.",
    )
    parser.add_argument("part", choices=PARTS, help="which of the two networks")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="file to write")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and say what the file takes and gives. Raises EtrError."""
    config = config_from(args)

    from etr_ros import export

    exportable = export.extractor(config) if args.part == "extractor" else export.reranker(config)
    export.write(args.output, exportable)
    print(f"{args.output}: {', '.join(exportable.input_names)} -> {', '.join(exportable.output_names)}")
    return 0

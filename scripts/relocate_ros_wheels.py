"""Make the CMake files of the ROS wheels point at the Python that runs this, the one that they are installed in.

The wheels export include folders of the machine that built them (`/opt/python/cp3XX-cp3XX/...`), and CMake refuses
to use an exported folder that does not exist. Running it again changes nothing.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_PYTHON = r"/opt/python/cp3\d+-cp3\d+"
REPLACEMENTS = {
    rf"{BUILD_PYTHON}/lib/python3\.\d+/site-packages/numpy/(_core|core)/include": np.get_include(),
    rf"{BUILD_PYTHON}/lib/python3\.\d+/site-packages": sysconfig.get_path("purelib"),
    rf"{BUILD_PYTHON}/include/python3\.\d+": sysconfig.get_path("include"),
}


def main() -> None:
    """Rewrite the files that name a folder of the build machine."""
    for path in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
        before = path.read_text(encoding="utf-8")
        after = before
        for pattern, folder in REPLACEMENTS.items():
            after = re.sub(pattern, folder, after)
        if after != before:
            path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Makes `.venv`, in which etr_ros and ROS 2 run without anything sourced: `make setup` calls this.

Everything goes into that one prefix: the packages of requirements.lock (ROS 2 among them), the messages of etr_ros_msgs
and the package etr_ros itself, in editable form. The ROS wheels start python a second time with `.venv/lib` on the
library path (their `ros_wheels_bootstrapper`), and the message libraries lie in that same folder. So `.venv/bin/etr`,
`.venv/bin/etr_node` and `.venv/bin/python` work as they are.

Each step ends by writing a stamp: the hash of all that it was made from. A step whose stamp is missing or differs
(its input changed, it failed, it was interrupted) is made anew; the first step starts from an empty `.venv`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "stamps"
LOCK = ROOT / "requirements.lock"
RELOCATE = ROOT / "scripts" / "relocate_ros_wheels.py"
MESSAGES = ROOT / "etr_ros_msgs"
PACKAGE = [ROOT / "setup.py", ROOT / "setup.cfg"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
OLDEST_TOOLS = {"cmake": (3, 20), "g++": (9, 0)}


def main() -> int:
    """The exit code: 0 when `.venv` is complete, 1 after saying what is wrong, 130 after Ctrl-C."""
    problems = list(missing_on_this_machine())
    if problems:
        print(*(f"set-up: {problem}" for problem in problems), sep="\n", file=sys.stderr)
        return 1
    packages = digest([LOCK, RELOCATE], salt=f"{sys.version} {ROOT}")
    try:
        step("packages", packages, install_packages)
        step("messages", digest([MESSAGES], salt=packages), build_messages)
        step("package", digest(PACKAGE, salt=packages), install_package)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd[:4]))
        print(f"set-up: '{command} ...' failed, see above; 'make setup' tries again from this step", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def missing_on_this_machine() -> Iterable[str]:
    """One line for each thing that must be installed first: what it is, and how to get it."""
    system = f"{platform.system()} {platform.machine()}"
    if system != "Linux x86_64":
        yield f"the ROS 2 wheels are for Linux x86_64, this is {system}: use colcon with an installed ROS 2 instead"
    version = platform.python_version()
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        yield f"Python 3.10 to 3.13 is needed, this is {version}: name another, as in 'make setup PYTHON=python3.12'"
    apt_python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not importlib.util.find_spec("ensurepip"):
        yield f"Python {version} has no venv module: sudo apt install {apt_python}-venv"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        yield f"Python {version} has no C headers: sudo apt install {apt_python}-dev"
    if Path(sys.prefix) == VENV:
        yield "this Python is the one that is to be made: run 'deactivate' first"
    for tool, oldest in OLDEST_TOOLS.items():
        found = tool_version(tool)
        if found is None or found < oldest:
            has = "there is none" if found is None else f"this is {found[0]}.{found[1]}"
            yield f"{tool} {oldest[0]}.{oldest[1]} or newer is needed, {has}: sudo apt install {tool}"


def tool_version(tool: str) -> tuple[int, int] | None:
    """Major and minor version of a program on the PATH; None when there is no such program."""
    if not shutil.which(tool):
        return None
    answer = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = re.search(r"(\d+)\.(\d+)(?:\.\d+)?(?=\s|$)", answer)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def digest(paths: Iterable[Path], salt: str) -> str:
    """Hash of the names and the content of all files in `paths`, folders included."""
    total = hashlib.sha256(salt.encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                total.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def step(name: str, key: str, make: Callable[[], None]) -> None:
    """Call `make` unless its stamp says that it was completed for the same `key`."""
    stamp = STAMPS / name
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return
    stamp.unlink(missing_ok=True)
    make()
    stamp.write_text(key, encoding="utf-8")


def install_packages() -> None:
    """An empty `.venv`; torch with all that its wheel wants (CUDA libraries, if it is such a wheel); then the lock."""
    say("Python packages and ROS 2 into .venv (the first time this downloads much)")
    run(sys.executable, "-m", "venv", "--clear", VENV)
    STAMPS.mkdir()
    (STAMPS / "python").write_text(sys.executable, encoding="utf-8")
    torch_index = os.environ.get("TORCH_INDEX")
    pip("--constraint", LOCK, *(("--extra-index-url", torch_index) if torch_index else ()), "torch", "setuptools")
    pip("--no-deps", "--no-build-isolation", "--requirement", LOCK)
    run(VENV / "bin" / "python", RELOCATE)


def build_messages() -> None:
    """Generate, compile and install etr_ros_msgs with colcon."""
    say("messages of etr_ros_msgs (about a minute)")
    work = VENV / "colcon"
    shutil.rmtree(work, ignore_errors=True)
    run(
        *(VENV / "bin" / "colcon", "--log-base", work / "log", "build", "--base-paths", MESSAGES),
        *("--build-base", work / "build", "--install-base", VENV, "--merge-install"),
        *("--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={VENV / 'bin' / 'python'}"),
    )


def install_package() -> None:
    """Make `import etr_ros`, `.venv/bin/etr` and `.venv/bin/etr_node` use the sources in this folder."""
    say("etr_ros itself")
    pip("--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT)


def pip(*arguments: str | Path) -> None:
    """Install into `.venv`."""
    run(VENV / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", *arguments)


def run(*command: str | Path) -> None:
    """Run a command of `.venv`, with the programs in it first on the PATH."""
    environment = os.environ | {
        "VIRTUAL_ENV": str(VENV),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLCON_HOME": str(VENV / "colcon"),
        "MAKEFLAGS": f"-j{min(os.cpu_count() or 1, 8)}",  # colcon's own choice compiles one by one on a busy machine
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def say(text: str) -> None:
    """Tell the user what begins."""
    print(f"set-up: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

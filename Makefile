# Everything runs from .venv, which `make setup` creates; scripts/setup_env.py says how.

# The Python that .venv was made with, or any other that is asked for
PYTHON ?= $(or $(shell cat .venv/stamps/python 2>/dev/null),python3)

# Nothing of a ROS installation that the shell may have sourced, nor of this make, reaches .venv
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH COLCON_PREFIX_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE MAKEFLAGS
export AMENT_PREFIX_PATH := $(CURDIR)/.venv
export CMAKE_PREFIX_PATH := $(CURDIR)/.venv
# ROS processes of tests and demo talk to one another only, never to a robot on the network
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export ROS_DOMAIN_ID := $(shell echo $$(($$$$ % 100 + 1)))

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-loops test lint benchmark benchmark-accuracy clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-20s  %s\n", $$1, $$2}' Makefile
	@echo
	@echo "PYTHON=python3.12   another Python (3.10 to 3.13) for .venv"
	@echo "TORCH_INDEX=URL     also look for torch in this package index; with that of PyTorch's CPU wheels"
	@echo "                    set-up downloads gigabytes less"
	@echo "BAG=FOLDER          make demo: build the map from this rosbag2 instead of a simulated drive; no demo-loops"
	@echo "IMAGES=FOLDER       make demo: use the pictures of this folder instead of a simulated drive; no demo-loops"

setup: ## create or update .venv with ROS 2, the messages and etr_ros; seconds when nothing changed
	@command -v $(PYTHON) >/dev/null || { echo "set-up: $(PYTHON) is not there: sudo apt install python3 python3-venv python3-dev, or name another with PYTHON=" >&2; exit 1; }
	@TORCH_INDEX='$(TORCH_INDEX)' $(PYTHON) scripts/setup_env.py

demo: setup ## a simulated robot maps a world and is told where it is (BAG=, IMAGES=); without these, then demo-loops
	.venv/bin/python examples/demo/run.py $(if $(BAG),--bag '$(BAG)') $(if $(IMAGES),--images '$(IMAGES)')
	$(if $(BAG)$(IMAGES),,.venv/bin/python examples/demo/closed_loop.py)

demo-loops: setup ## a robot with drifting odometry closes loops; a GTSAM back end corrects its path (5 minutes)
	.venv/bin/python examples/demo/closed_loop.py

test: setup ## all tests, real ROS processes among them
	.venv/bin/python -m pytest -q

benchmark: setup ## time every stage beside the machine's best and other re-rankers, into docs/ (DATA=folder of pictures; 6 minutes)
	@test -n "$(DATA)" || { echo "benchmark: name the folder that holds sf_streets with DATA=" >&2; exit 1; }
	.venv/bin/python benchmarks/speed.py --data '$(DATA)'

benchmark-accuracy: setup ## compare re-rankers on unseen places, into docs/ (DATA=folder of pictures; three hours)
	@test -n "$(DATA)" || { echo "benchmark-accuracy: name the folder that holds ie_tower and sf_streets with DATA=" >&2; exit 1; }
	mkdir -p benchmark_work
	.venv/bin/python benchmarks/accuracy.py --data '$(DATA)' --work benchmark_work --extractors xfeat --output docs/accuracy.md
	.venv/bin/python benchmarks/accuracy.py --data '$(DATA)' --work benchmark_work --extractors superpoint --only tower E2M1 E4M6 SF --output docs/accuracy-superpoint.md
	.venv/bin/python benchmarks/accuracy.py --data '$(DATA)' --work benchmark_work --extractors delg-lite --only tower E2M1 E4M6 SF --output docs/accuracy-delg.md

lint: setup ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/mypy

clean: ## remove .venv and everything that was built
	rm -rf .venv build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

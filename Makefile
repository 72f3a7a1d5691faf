# The two commands that a fresh machine needs: `make demo` and `make test`.

VENV := .venv
PYTHON := $(VENV)/bin/python
# The CPU build that all tests run with. A range would make pip take the newest build with several
# gigabytes of CUDA; on a machine with GPUs: `make TORCH=torch ...`.
TORCH := torch==2.13.0
# Two files of tests at a time: most of them wait for processes that start.
PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile --durations=5

.PHONY: setup demo ladder ladder-results test lint unit distributed study slurm slurm-packages \
  slurm-demo clean

setup: $(VENV)/ready

# One requirement set: deepspeed resolved before torch would pull torch's newest build.
$(VENV)/ready: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	touch $@

demo: setup
	$(PYTHON) examples/fetch.py
	$(VENV)/bin/bigtickets run examples/demo.yaml -j 2

test: lint unit distributed study slurm

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

unit: setup
	$(PYTEST) tests/unit

distributed: setup
	$(PYTEST) tests/distributed

study: setup
	$(PYTEST) tests/study

slurm: setup slurm-packages
	$(PYTEST) tests/slurm

# Debian's SLURM, for a cluster of plain processes; where it cannot be had, its tests say so and skip.
slurm-packages:
	@PATH="$$PATH:/usr/sbin:/sbin"; command -v slurmctld slurmd munged >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -q --no-install-recommends slurm-wlm munge iproute2; } || \
	  echo "no SLURM here, and it could not be installed"

slurm-demo: setup slurm-packages
	$(PYTHON) examples/fetch.py
	$(PYTHON) tests/slurm/cluster.py -- $(VENV)/bin/bigtickets submit examples/demo.yaml \
	  --out runs/demo-slurm --cluster slurm/clusters/demo.yaml
	$(VENV)/bin/bigtickets status runs/demo-slurm

# The real study, hours long; what is done is not done again. What it shows: docs/results/README.md.
ladder: setup
	$(PYTHON) examples/fetch.py bert-tiny bert-mini L3 L6 gte-small vader
	$(VENV)/bin/bigtickets run examples/size_ladder.yaml -j 2
	$(VENV)/bin/bigtickets run examples/few_samples.yaml -j 2

# What the repository keeps of it, and what the differences from the paper's protocol change.
KEEP := $(PYTHON) benchmarks/keep_results.py
ladder-results: setup
	$(VENV)/bin/bigtickets run examples/paper_protocol.yaml -j 2
	$(KEEP) runs/size-ladder docs/results/size-ladder
	$(KEEP) runs/few-samples docs/results/few-samples
	$(PYTHON) benchmarks/against_paper.py runs/size-ladder --token-run runs/paper-protocol \
	  --out docs/results/size-ladder/against_paper.md

clean:
	rm -rf $(VENV) runs examples/assets build *.egg-info

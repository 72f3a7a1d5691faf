# The two commands that a fresh machine needs: `make demo` and `make test`.

VENV := .venv
PYTHON := $(VENV)/bin/python
# The CPU build that all tests run with. A range would make pip take the newest build with several
# gigabytes of CUDA; on a machine with GPUs: `make TORCH=torch ...`.
TORCH := torch==2.13.0

.PHONY: setup demo test lint unit distributed study clean

setup: $(VENV)/ready

# One requirement set: deepspeed resolved before torch would pull torch's newest build.
$(VENV)/ready: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	touch $@

demo: setup
	$(PYTHON) examples/fetch.py
	$(VENV)/bin/bigtickets run examples/demo.yaml -j 2

test: lint unit distributed study

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

unit: setup
	$(PYTHON) -m pytest tests/unit

distributed: setup
	$(PYTHON) -m pytest tests/distributed

study: setup
	$(PYTHON) -m pytest tests/study

clean:
	rm -rf $(VENV) runs examples/assets build *.egg-info

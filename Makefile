# Everything a fresh machine needs is installed by these targets: Python 3.11+, a C++20 compiler and make are enough.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamps
export PIP_DISABLE_PIP_VERSION_CHECK := 1
NATIVE := $(shell find native cmake -type f 2>/dev/null) CMakeLists.txt pyproject.toml

.PHONY: demo test test-slow check format bench bench-exact bench-kernels docs build clean fuzz coverage

$(STAMP)/venv:
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	mkdir -p $(STAMP) && touch $@

$(STAMP)/tools: $(STAMP)/venv pyproject.toml
	$(PY) -m pip install -q "ruff==0.17.6" "mypy==2.4.1" "clang-format==23.1.5" "cmake>=3.26" "ninja>=1.11" "scikit-build-core>=0.11" "nanobind>=2.4"
	touch $@

$(STAMP)/dev: $(STAMP)/tools requirements/constraints.txt requirements/zoo.txt
	$(PY) -m pip install -q -c requirements/constraints.txt "torch==2.13.0"
	$(PY) tools/extras.py compress gpu report demo dev bench | xargs -d '\n' $(PY) -m pip install -q -c requirements/constraints.txt
	$(PY) -m pip install -q --no-deps -r requirements/zoo.txt
	touch $@

$(STAMP)/build: $(STAMP)/dev $(NATIVE)
	$(PY) -m pip install -q --no-build-isolation --no-deps -C cmake.define.FASTCNN_EMULATE_AVX512=ON -e .
	touch $@

build: $(STAMP)/build

demo: $(STAMP)/build
	$(PY) -m fastcnn demo

test: $(STAMP)/build
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not slow" -n 2 --dist loadfile --durations=15

test-slow: $(STAMP)/build
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --durations=30

check: $(STAMP)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run --Werror $$(find native -name '*.cpp' -o -name '*.h' -o -name '*.inc')

format: $(STAMP)/tools
	$(VENV)/bin/ruff check --fix . || true
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $$(find native -name '*.cpp' -o -name '*.h' -o -name '*.inc')

fuzz: $(STAMP)/build
	$(PY) tools/fuzz_artifact.py --cases 100000
	$(PY) tools/fuzz_artifact.py --stage load --cases 10000

# Our time over the peer's, at 2 threads and batch 1: a missed one fails the target, after the table has been written.
FOUNDATION_GOALS := vgg16:onnxruntime=0.9 resnet18:onnxruntime=0.9 resnet50:onnxruntime=1.1 mobilenetv2:onnxruntime=1.4 alexnet:onnxruntime=0.9

bench: $(STAMP)/build
	mkdir -p benchmarks/results
	$(PY) -m fastcnn bench --suite foundation --against torch,onnxruntime,openvino,ncnn,mnn --threads 2 \
	  $(addprefix --goal ,$(FOUNDATION_GOALS)) --out benchmarks/results/foundation.json; code=$$?; \
	if [ $$code -le 1 ]; then $(PY) tools/readme_table.py benchmarks/results/foundation.json || exit; fi; exit $$code

# Five nets under six conditions, some hours; a stopped run goes on where it was.
bench-exact: $(STAMP)/build
	mkdir -p benchmarks/results
	$(PY) -m fastcnn bench --suite exact --threads 2 --out benchmarks/results/exact.json; code=$$?; \
	if [ $$code -le 1 ]; then $(PY) tools/readme_table.py benchmarks/results/exact.json || exit; fi; exit $$code

# Algorithms by kernel size, with the goals of large kernels, about an hour; a stopped run goes on where it was. Goals are
# judged by five rounds; a chart has many points, which vouch for each other.
KERNELS := benchmarks/results/kernels.json
bench-kernels: $(STAMP)/build
	mkdir -p benchmarks/results build
	$(PY) -m fastcnn bench --kernels --threads 2 --seconds 0.6 --rounds 5 --rows layers,training --out $(KERNELS); \
	cells=$$?; [ $$cells -le 1 ] || exit $$cells; \
	$(PY) -m fastcnn bench --kernels --threads 2 --seconds 0.6 --rounds 3 \
	  --rows by-kernel,depthwise,by-channels,by-map,by-batch --out $(KERNELS) --html build/kernels.html \
	  --png docs/concepts/crossover.png; charts=$$?; [ $$charts -le 1 ] || exit $$charts; \
	$(PY) -m fastcnn.benchmarking.kernels.markdown $(KERNELS) docs/concepts/crossover.md || exit; \
	exit $$((cells | charts))

coverage: $(STAMP)/build
	mkdir -p benchmarks/results
	$(PY) -m fastcnn.reproduction.zoo --out benchmarks/results/zoo.json
	$(PY) tools/coverage_page.py benchmarks/results/zoo.json

docs: $(STAMP)/build
	$(PY) tools/extras.py docs | xargs -d '\n' $(PY) -m pip install -q -c requirements/constraints.txt
	$(VENV)/bin/mkdocs build --strict

clean:
	rm -rf build dist $(VENV)

# Every job a person runs. Each is a subcommand of `gaincell`; this file sets the environment up
# and passes variables on:
#
#   make [demo]                     the main job: real tokens, Verilog, co-simulation, area, report;
#                                   takes every variable of the jobs below
#   make test                       all tests
#   make verilog [PRESET=default]   build/verilog/attention_head.v and .json; any parameter:
#                                   SET='rows=80 lanes=65'
#   make registers [PRESET=default] build/registers: register map as SystemRDL, HTML, C header and
#                                   Python constants
#   make package                    build/package/: the same, FuseSoC core, port documents, example
#   make cosim TOKENS=1200 SEED=0   real tokens through Verilog and array model; LAYER=, HEAD= of the
#                                   language model; PRESET=, READOUT=, SCHEDULE=, SET=,
#                                   SIMULATOR=icarus
#   make cosim-all TOKENS=10000     the same on every preset, layers included
#   make soak PACKETS=20000 SEED=0  random packets, stalls, resets and register accesses on a small
#                                   head; PROCESSES=2 simulations at a time
#   make gates PACKETS=300          small heads as netlists of cells, unknown at power-up; LIBERTY=file
#   make area [LIBERTY=file]        cells, area and gate equivalents by block; what features cost
#   make timing [LIBERTY=file]      netlist of cells, highest clock, slowest paths; CLOCK_PS=, EFFORT=
#   make energy [LIBERTY=file]      the netlist at work on real tokens: energy per token by block and
#                                   phase; TOKENS= that stream
#   make equivalence                small heads' netlists proved equal to their sources
#                                   LIBERTY may name several files that make one library
#   make retention TOKENS=1200      what leakage costs real tokens, and what refresh gives back
#   make calibrate [SEED=0]         offsets of converters before and after trimming; PRESET=, SET=
#   make fpga [BOARD=ulx3s]         bitstream for a board: build/fpga; BOARD=icebreaker; PROGRAM=1
#                                   loads it
#   make board-sim                  the boards' Verilog, serial line included, against the reference,
#                                   over good lines and a bad one; their integers against the model
#   make llm [ARGS=--quick]         perplexity of a mapped language model, beside teacher and control
#   make retention-map              droop over window, token rate and tau; what refresh costs
#   make analog-energy              energy of a token in the arrays, against the published figures
#   make montecarlo DEVICE=sky130-tt DEVICES=1000   error of attention over devices, before and after
#                                   trim; resumable; `gaincell sweep` for any other grid
#   make characterise [QUICK=1]     gain cell and converter in SPICE; device presets of each corner;
#                                   CHECK=1 compares the committed ones with fit and simulation
#   make bench                      speed ratios against named limits
#   make formal / formal-full       proofs, two at a time; the latter at every size, with every bug
#   make mutants                    mutation campaign
#   make report [NODE_NM=28]        build/report/index.html and silicon.json from what has been run:
#                                   published figures and ours, carried to 28 nm
#   make metrics / metrics-update   figures against the values that hold; let today's hold
#   make browser                    the browser that the report's test looks at the page with
#   make docs / docs-check          write, or check, the generated figures in the documents
#   make lint                       ruff, mypy, Verilator
#   make clean / distclean          remove build/, and also the environment

TRACE = --tokens $(TOKENS) --seed $(SEED) $(if $(LAYER),--layer $(LAYER)) $(if $(HEAD),--head $(HEAD))
SHAPE = $(if $(SCHEDULE),--schedule $(SCHEDULE)) $(foreach setting,$(SET),--set $(setting))
SETTINGS = $(if $(READOUT),--readout $(READOUT)) $(SHAPE)
LIBRARY = $(foreach file,$(LIBERTY),--liberty '$(file)')
FLOW = $(LIBRARY) $(if $(CLOCK_PS),--clock $(CLOCK_PS)) $(if $(EFFORT),--effort $(EFFORT))
GAINCELL := .venv/bin/gaincell
PYTHON := .venv/bin/python

PRESET ?= default
READOUT ?=
SCHEDULE ?=
PACKETS ?= 20000
PROCESSES ?= 1
TOKENS ?= 1200
SEED ?= 0
LAYER ?=
HEAD ?=
SIMULATOR ?= verilator
LIBERTY ?=
CLOCK_PS ?=
EFFORT ?=
SET ?=
ARGS ?=
MUTANTS ?= 500
QUICK ?=
BOARD ?= ulx3s
PROGRAM ?=

.DEFAULT_GOAL := demo
DEVICE ?=
DEVICES ?= 1000

.PHONY: montecarlo retention-map analog-energy
montecarlo: .venv/.ready
	$(GAINCELL) montecarlo --devices $(DEVICES) --seed $(SEED) $(if $(DEVICE),--device $(DEVICE))

retention-map: .venv/.ready
	$(GAINCELL) $@

analog-energy: .venv/.ready
	$(GAINCELL) $@ $(if $(DEVICE),--device $(DEVICE))

.PHONY: demo setup test verilog registers package cosim cosim-all soak gates area timing energy \
  equivalence retention calibrate characterise fpga board-sim bench formal formal-full mutants report docs docs-check \
  lint clean distclean

demo: .venv/.ready
	$(GAINCELL) demo --preset $(PRESET) $(TRACE) --simulator $(SIMULATOR) \
	  $(LIBRARY) $(SETTINGS)

setup: .venv/.ready
.venv/.ready: pyproject.toml requirements/constraints.txt requirements/data.txt tools/setup.sh
	tools/setup.sh

test: .venv/.ready
	$(PYTHON) -m pytest -n 2 --dist loadgroup

verilog registers package: .venv/.ready
	$(GAINCELL) $@ --preset $(PRESET) $(SETTINGS)

cosim: .venv/.ready
	$(GAINCELL) cosim --preset $(PRESET) $(TRACE) --simulator $(SIMULATOR) $(SETTINGS)

cosim-all: .venv/.ready
	$(GAINCELL) cosim --every $(TRACE) --simulator $(SIMULATOR)

soak: .venv/.ready
	$(GAINCELL) soak --packets $(PACKETS) --seed $(SEED) --simulator $(SIMULATOR) \
	  --processes $(PROCESSES) \
	  $(if $(filter-out default,$(PRESET)),--preset $(PRESET)) $(SETTINGS)

gates: .venv/.ready
	$(GAINCELL) gates --seed $(SEED) $(if $(findstring command,$(origin PACKETS)),--packets $(PACKETS)) \
	  $(LIBRARY)

area: .venv/.ready
	$(GAINCELL) area --preset $(PRESET) $(LIBRARY) $(SHAPE)

equivalence: .venv/.ready
	$(GAINCELL) equivalence $(LIBRARY)

timing: .venv/.ready
	$(GAINCELL) timing --preset $(PRESET) $(FLOW) $(SETTINGS)

energy: .venv/.ready
	$(GAINCELL) energy --preset $(PRESET) --seed $(SEED) $(FLOW) $(SETTINGS) \
	  $(if $(findstring command,$(origin TOKENS)),--tokens $(TOKENS))

llm: .venv/.ready
	$(GAINCELL) llm evaluate $(ARGS)

retention: .venv/.ready
	$(GAINCELL) retention $(TRACE)

calibrate: .venv/.ready
	$(GAINCELL) calibrate --preset $(PRESET) --seed $(SEED) \
	  $(foreach setting,$(SET),--set $(setting))

# Place and route is large, and nothing else needs it.
.venv/.fpga: .venv/.ready requirements/fpga.txt
	$(PYTHON) -m pip --disable-pip-version-check --no-input -q install -r requirements/fpga.txt
	touch $@

fpga: .venv/.fpga
	$(GAINCELL) fpga --board $(BOARD) $(if $(PROGRAM),--program)

# At one per cent few of the large board's long frames get through: its line is good only.
board-sim: .venv/.ready
	$(GAINCELL) board compare --board ulx3s --seed $(SEED)
	$(GAINCELL) board simulate --board icebreaker --seed $(SEED)
	$(GAINCELL) board simulate --board ulx3s --share 0 --seed $(SEED)

bench formal metrics docs docs-check: .venv/.ready
	$(GAINCELL) $@

NODE_NM ?=
report: .venv/.ready
	$(GAINCELL) report $(if $(NODE_NM),--node-nm $(NODE_NM))

.PHONY: metrics metrics-update browser
metrics-update: .venv/.ready
	$(GAINCELL) metrics --update

browser:
	tools/setup.sh browser

formal-full: .venv/.ready
	$(GAINCELL) formal --full

mutants: .venv/.ready
	$(GAINCELL) mutants --count $(MUTANTS) --seed $(SEED)

characterise: .venv/.ready
	$(GAINCELL) characterise $(if $(QUICK),--quick) $(if $(CHECK),--check)

lint: .venv/.ready
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(GAINCELL) lint

clean:
	rm -rf build

distclean: clean
	rm -rf .venv *.egg-info

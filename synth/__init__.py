"""Yosys: Verilog, area by hierarchy, proofs and mutants."""

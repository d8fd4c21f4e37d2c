"""Generated Verilog and analog models together, clock by clock."""

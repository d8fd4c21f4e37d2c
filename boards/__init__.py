"""The head on an FPGA board: arrays emulated beside it, packets and registers over a serial line."""

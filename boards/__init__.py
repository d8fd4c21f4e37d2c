"""The head on an FPGA board: its arrays emulated beside it, a host at a serial line."""

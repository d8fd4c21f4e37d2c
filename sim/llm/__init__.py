"""Language models on the hardware: the mapping, the arrays in PyTorch, evaluation, generation."""

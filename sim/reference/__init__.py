"""Integer-exact references of the blocks in `hw`: what each must do, not how it does it."""

"""Digital control of gain-cell attention, in Amaranth: what becomes silicon."""

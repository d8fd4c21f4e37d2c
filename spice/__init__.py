"""Circuits in SkyWater 130 nm: the gain cell and its converter as netlists, measured in ngspice."""

"""FuseSoC generator: writes the package of a head with the parameters of the calling core."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from synth.package import package_params, write_package


def main() -> None:
    """Read the job that FuseSoC describes in a file, and write the core beside it."""
    job = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    fields = dict(job.get("parameters") or {})
    params = package_params(fields.pop("preset", "default"), fields)
    write_package(params, Path.cwd(), vlnv=job["vlnv"])


if __name__ == "__main__":
    main()

"""Trains the projector, `streaming/bundles/parts/pocket-projector/projector.safetensors`, from nothing:

    python -m training.pocket [stage ...] [--data ../shared/data] [--device cpu] [--out FILE]

Stages, all of them in this order where none is named: `texts` (what synthetic callers say), `hear` (their speech and the recordings, as
Whisper's encoder hears them), `ctc` (the fit) and `export`. Each goes on where it was stopped, keeps what it made in the cache folder, and
costs nothing when that is there. Seeded: the same machine makes the same file. It needs what `vivavoce pull pocket pocket-kokoro` fetches.
"""

import argparse
from pathlib import Path
from typing import Final

import torch

from streaming.models.ctranslate2 import WeightsError
from streaming.needs import usable_cores
from training.pocket.clips import DataError
from training.pocket.fit import FitError
from training.pocket.stages import STAGES, Pocket

_OUT: Final = Path(__file__).parents[2] / "streaming" / "bundles" / "parts" / "pocket-projector" / "projector.safetensors"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pocket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, "all"], default="all", help="what to do; nothing named: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="torch's; hearing takes as many processes")
    parser.add_argument("--out", type=Path, default=_OUT, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pocket = Pocket(options.data, options.device, options.out, options.threads)
    try:
        for stage in STAGES if "all" in options.stages else options.stages:
            STAGES[stage](pocket)
    except (DataError, FitError, WeightsError, OSError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("stopped; started again it goes on from here") from None


if __name__ == "__main__":
    main()

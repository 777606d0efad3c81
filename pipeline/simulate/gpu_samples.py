"""What GPUs measure, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.byte_matrix import Ints
from pipeline.simulate.noise import Floats


@dataclass(frozen=True, slots=True)
class Samples:
    """What the GPUs of one slice measure; all arrays have one entry for each GPU."""

    utilization: Floats
    engine: Floats
    memory: Floats
    power: Floats
    heat: Floats
    failed: NDArray[np.bool_]
    xid: Ints

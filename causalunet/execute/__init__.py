"""Following a plan: traced U-Net calls, the lockstep over the steps, records handed to the store."""

from causalunet.execute.calibration import calibrate
from causalunet.execute.lockstep import Block, run_block

__all__ = ["Block", "calibrate", "run_block"]

"""Following a plan: traced U-Net calls, the lockstep over the steps, records handed to the store."""

from causalunet.execute.calibration import calibrate
from causalunet.execute.generate import generate
from causalunet.execute.lockstep import Block, run_block
from causalunet.execute.run import run_plan
from causalunet.execute.trace import TracedUNet

__all__ = ["Block", "TracedUNet", "calibrate", "generate", "run_block", "run_plan"]

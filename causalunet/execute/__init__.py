"""Following a plan: traced U-Net calls, the lockstep over the steps, records handed to the store."""

from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.fill.run_plan import run_plan
from causalunet.execute.measure.calibration import calibrate
from causalunet.execute.measure.statistics import model_statistics
from causalunet.execute.walk.generate import generate
from causalunet.execute.walk.lockstep import Block, run_block

__all__ = ["Block", "TracedUNet", "calibrate", "generate", "model_statistics", "run_block", "run_plan"]

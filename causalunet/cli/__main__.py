"""``python -m causalunet.cli``."""

import sys

from causalunet.cli import main

sys.exit(main())

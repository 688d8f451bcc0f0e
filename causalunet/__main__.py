"""``python -m causalunet``."""

import sys

from causalunet.cli import main

sys.exit(main())

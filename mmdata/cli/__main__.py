"""`python -m mmdata.cli` is the command `mmdata`."""

import sys

from mmdata.cli.main import main

sys.exit(main())

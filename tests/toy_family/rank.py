"""A rank of a run of toys: `flamingo.launch.entry`, with one family more in the table."""

import sys

from flamingo.launch.entry import main
from tests.toy_family.family import add_toys

if __name__ == "__main__":
    add_toys()
    sys.exit(main(sys.argv[1:]))

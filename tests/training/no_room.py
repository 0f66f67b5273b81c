"""psarm's command line where no file can be larger than 64 KiB."""

import resource
import sys

from psarm.cli import run

resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))

"""`python -m video_knet_core.cli` is the `video-knet` command."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())

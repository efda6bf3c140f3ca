"""`python -m video_knet_core.doctor [MODEL]` is `video-knet doctor`, and needs no dependencies."""

import sys

from .examination import doctor

if __name__ == "__main__":
    sys.exit(doctor(sys.argv[1] if len(sys.argv) > 1 else None))

"""A renderer of generated driving scenes with exact panoptic and track labels.

    frame = SyntheticStreet(seed=1, height=288, width=480).frame(0)

For the demo, for training and for tests; a robot that runs a model does not import it.
"""

from .street import SyntheticStreet as SyntheticStreet

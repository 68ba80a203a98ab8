"""Values that the paper reports (arXiv 1807.03418v2), shown beside a study's own. Recalled, not verified."""

from typing import Final

TEST_ACCURACY: Final = "test accuracy"
UNCHANGED: Final = "none"
"""Name of the manipulation that changes nothing."""
OTHER_PITCH: Final = "pitch of the other gender"
"""Name of the manipulation, and of the accuracy after it."""


def removal(order: str) -> str:
    """What the accuracy with 1 % of the input removed is called."""
    return f"1 % removed: {order}"


REPORTED: Final[dict[tuple[str, str, str], tuple[float, float | None]]] = {
    (TEST_ACCURACY, "alexnet", "digit"): (95.82, 1.49),
    (TEST_ACCURACY, "alexnet", "gender"): (95.87, 2.85),
    (TEST_ACCURACY, "audionet", "digit"): (92.53, 2.04),
    (TEST_ACCURACY, "audionet", "gender"): (91.74, 8.60),
    (OTHER_PITCH, "alexnet", "gender"): (20.3, 12.6),
    (removal("random"), "audionet", "digit"): (92.0, None),
    (removal("amplitude"), "audionet", "digit"): (85.0, None),
    (removal("morf"), "audionet", "digit"): (77.0, None),
}
"""Mean and standard deviation over folds in percent, by quantity, network and task."""

"""Numbers in sentences."""

_MOST_DECIMALS = 12


def number_beside(value: float, threshold: float, decimals: int) -> str:
    """Return a number in as many decimals as show on which side of the threshold it lies.

    Rounded, 0.496 would read as 0.50 in a sentence that calls it less than 0.5.

    Parameters
    ----------
    value, threshold
        The number, and the one it is compared with.
    decimals
        Of the number where its side is clear.
    """

    def side(number: float) -> tuple[bool, bool]:
        return number >= threshold, number <= threshold

    texts = (f"{value:.{places}f}" for places in range(decimals, _MOST_DECIMALS))
    return next((text for text in texts if side(float(text)) == side(value)), str(value))

"""What an upstream can do wrong."""

__all__ = ["UpstreamError"]


class UpstreamError(Exception):
    """The upstream did not do what was asked. The message is for the session's client: it names the fault, and neither key nor address.
    `passing` is whether it may go better when tried again; `wait` is for how many seconds the upstream asks to be left alone."""

    def __init__(self, message: str, *, passing: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.passing = passing
        self.wait = wait

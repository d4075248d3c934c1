"""How the server says no: a status, a sentence for the user, and the field that it is about. No torch."""


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: Of HTTP.
        message: What was got, expected, and what to do; nothing of this machine stands in it.
        param: The field that it is about.
        code: One word for programs, as metrics count it.
        retry_after_s: When it may be tried again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str = "invalid_value",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.retry_after_s = retry_after_s


def too_large(what: str, *, most_bytes: int, param: str | None = None) -> Refused:
    """What has more bytes than are taken -> its refusal."""
    return Refused(
        f"{what}: got more than {most_bytes:,} bytes, expected at most that; send a shorter or smaller file",
        status=413,
        param=param,
        code="too_large",
    )

"""The one error that is the user's to mend: printed as one line, without a traceback."""


class UserError(Exception):
    """What was got, what was wanted, and what to do.

    >>> raise UserError("clip.mp4: 0 frames decoded, need >= 1; check the file with ffprobe")
    """


class MediaError(UserError):
    """A media file that cannot be used, with the reason."""


class WriteError(UserError):
    """A file or a folder that cannot be written, with the reason."""

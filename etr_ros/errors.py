"""Every expected failure, as one exception family whose text says what to do about it."""


class EtrError(Exception):
    """Base of all expected failures; `str(error)` is one line for the user."""


class ConfigError(EtrError):
    """A configuration value is unknown, of the wrong type or out of range."""


class WeightsError(EtrError):
    """A weight file is missing, damaged, or made for another architecture."""


class ImageError(EtrError):
    """A picture cannot be decoded, or no features can be computed from it."""


class MapError(EtrError):
    """A map is missing, damaged, of another version, or made with another configuration."""


class DataError(EtrError):
    """An image folder, a bag, a pose file or a ground-truth file cannot be used."""


class CameraError(EtrError):
    """Intrinsics or depth that cannot be used."""

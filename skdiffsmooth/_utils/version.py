"""The version of the library, and of the format in which fitted estimators are saved."""

__version__ = "0.1.0"

# Raised whenever fitted attributes change so that models saved before cannot be used any more.
FORMAT = 1

"""Fitted attributes of the diffusion estimators that are read from the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from .model import DiffusionModel

Value = TypeVar("Value")


class FromModel(Generic[Value]):
    """A read-only fitted attribute, whose value is `read(model)`."""

    def __init__(self, read: Callable[[DiffusionModel], Value]) -> None:
        self.read = read

    def __set_name__(self, owner: type, name: str) -> None:
        """Store the name of the attribute, for messages."""
        self.name = name

    @overload
    def __get__(self, estimator: None, owner: type) -> FromModel[Value]: ...

    @overload
    def __get__(self, estimator: BaseEstimator, owner: type) -> Value: ...

    def __get__(self, estimator: BaseEstimator | None, owner: type) -> FromModel[Value] | Value:
        """Return the value, or the descriptor itself for a class."""
        if estimator is None:
            return self
        if "model_" not in vars(estimator):
            raise NotFittedError(
                f"{type(estimator).__name__} has no {self.name}, since it is not fitted; call fit first."
            )
        return self.read(estimator.model_)

    def __set__(self, estimator: BaseEstimator, value: Any) -> None:
        """Raise an error, since only `fit` changes the model."""
        raise AttributeError(f"{self.name} is read-only; fit again to change it.")

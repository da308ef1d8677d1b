"""Halves a failing batch; a single failure becomes an error row."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...pipelines.results import Answer


# As PyTorch's allocators, the CUDA driver, cuBLAS, cuDNN and MPS put it.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")


class ModelFailed(RuntimeError):
    """The model cannot go on in this process; the message says what to do."""


@dataclass
class BatchRetry:
    """Answers a batch; where that fails, its halves, down to single images, whose failures become error rows.

    A batch is halved when memory is out, and after any other exception, since one image may have caused it. An
    accelerator that is broken stops the run. So does `check`, if nothing but failures came of a shard and an image that
    is certainly good fails too.

    Args:
        answer: a batch of images -> an answer for each.

    Attributes:
        halved: how often a batch was halved for want of memory. answered: images that were answered.
        failed: messages of single images that failed for another reason than memory.
    """

    answer: Callable[[Sequence[Any]], list[Answer]]
    halved: int = 0
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    def __call__(self, images: Sequence[Any]) -> list[Answer]:
        from ...pipelines.results import Answer

        if not images:
            return []
        try:
            answers = self.answer(images)
        except Exception as error:
            memory = out_of_memory(error)
            if is_broken(error):
                raise ModelFailed(
                    f"the accelerator failed ({_first_line(error)}); what was finished is kept: start the same command "
                    "again"
                ) from error
            if len(images) == 1:
                if not memory:
                    self.failed.append(_first_line(error))
                return [Answer("", error=_why(error, memory))]
            self.halved += memory
        else:
            self.answered += len(answers)
            return answers
        free()  # outside the handler: the exception holds the tensors of the pass that failed
        middle = (len(images) + 1) // 2
        return self(images[:middle]) + self(images[middle:])

    def check(self, good: Any) -> None:
        """If every image failed, answer `good`, to find out whether the model is wrong or the images.

        Raises:
            ModelFailed: the model; says how it failed.
        """
        if self.answered or not self.failed:
            return
        try:
            self.answer([good])
        except Exception as error:
            if out_of_memory(error):
                return
            raise ModelFailed(
                f"the model failed on each of {len(self.failed)} images, and on a grey image too: {_first_line(error)}"
            ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine has too little memory."""
    import torch

    text = str(error).lower()
    named = isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or named


def is_broken(error: BaseException) -> bool:
    """Whether an exception says that the accelerator takes no more work from this process."""
    text = str(error)
    named = "CUDA error" in text or "device-side assert" in text or type(error).__name__ == "AcceleratorError"
    return isinstance(error, RuntimeError) and named and not out_of_memory(error)


def free() -> None:
    """Free what a failed pass still holds."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _why(error: Exception, memory: bool) -> str:
    if memory:
        return f"out of memory with this image alone ({_first_line(error)})"
    return f"the model failed on this image: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

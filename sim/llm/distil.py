"""How far a student's next tokens are from the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["divergence"]

_ROWS = 128  # tokens whose logits are held at a time


class _Divergence(torch.autograd.Function):
    """Kullback-Leibler divergence behind a shared head; its gradient is found on the way."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
        gradient, total = torch.empty_like(student), student.new_zeros(())
        for start in range(0, len(student), _ROWS):
            rows = slice(start, start + _ROWS)
            found, wanted = (
                torch.log_softmax((x[rows].to(head.dtype) @ head.T).float(), dim=-1)
                for x in (student, teacher)
            )
            p = wanted.exp()
            total += (p * wanted.sub_(found)).sum()
            gradient[rows] = (found.exp_().sub_(p)).to(head.dtype) @ head
        ctx.save_for_backward(gradient.div_(len(student)))
        return total / len(student)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None


def divergence(student: Tensor, teacher: Tensor, head: Tensor) -> Tensor:
    """Mean divergence in nats per token.

    Parameters
    ----------
    student, teacher
        Hidden states in front of the head, (tokens, width).
    head
        Weights of the head, (vocabulary, width); products have their precision.
    """
    out: Tensor = _Divergence.apply(student, teacher, head)
    return out

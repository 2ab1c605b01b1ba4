"""What is left out of a sample crosses when that sample is sent again, and no other gets it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.features.feedback import ErrorFeedback
from heterofed.frames.precision import Precision, left_out, pack_as, unpack_as


def positions(*given_: int) -> Tensor:
    return torch.tensor(given_, dtype=torch.int64)


def sent(feedback: ErrorFeedback, values: Tensor, where: Tensor, text: str = "topk:0.1") -> Tensor:
    """Send a batch and return what arrives."""
    precision = Precision.parse(text)
    corrected = feedback.add(values, where)
    wire = pack_as(corrected, precision)
    feedback.keep(left_out(corrected, wire), where)
    return unpack_as(wire, precision)


def test_what_was_never_left_out_adds_nothing() -> None:
    values = torch.tensor([[1.0, 2.0]])

    assert torch.equal(ErrorFeedback(3).add(values, positions(1)), values)


def test_what_was_left_out_of_a_sample_is_added_to_it_the_next_time() -> None:
    feedback = ErrorFeedback(3)

    feedback.keep(torch.tensor([[0.5, 0.0], [0.0, 0.25]]), positions(2, 0))

    added = feedback.add(torch.ones(3, 2), positions(0, 1, 2))
    assert added.tolist() == [[1.0, 1.25], [1.0, 1.0], [1.5, 1.0]]


def test_what_is_left_takes_the_place_of_what_was() -> None:
    feedback = ErrorFeedback(1)

    feedback.keep(torch.tensor([[0.5, 0.5]]), positions(0))
    feedback.keep(torch.tensor([[0.0, 0.25]]), positions(0))

    assert feedback.add(torch.zeros(1, 2), positions(0)).tolist() == [[0.0, 0.25]]


def test_adding_changes_neither_the_rows_nor_what_is_kept() -> None:
    feedback = ErrorFeedback(2)
    feedback.keep(torch.ones(2, 2), positions(0, 1))
    values = torch.zeros(2, 2)

    feedback.add(values, positions(0, 1)).fill_(7)

    assert torch.equal(values, torch.zeros(2, 2))
    assert torch.equal(feedback.add(values, positions(0, 1)), torch.ones(2, 2))


def test_rows_of_any_shape_and_dtype_and_inside_a_graph_are_taken() -> None:
    feedback = ErrorFeedback(4)
    values = torch.ones(2, 3, 2, dtype=torch.bfloat16, requires_grad=True)

    feedback.keep(torch.full((2, 3, 2), 0.001), positions(3, 1))
    added = feedback.add(values * 1, positions(1, 3))

    assert (added.shape, added.dtype, added.requires_grad) == ((2, 3, 2), torch.float32, False)
    assert torch.equal(added, torch.full((2, 3, 2), 1.001))


@settings(max_examples=50, deadline=None)  # a busy machine is no failure
@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from(["topk:0.1", "topk:0.5", "int8"]))
def test_nothing_is_lost_over_time(seed: int, times: int, text: str) -> None:
    """The sum of what arrived and what is still left is the sum of what was sent."""
    source = torch.Generator().manual_seed(seed)
    feedback, where = ErrorFeedback(5), positions(4, 0, 2)
    whole, arrived = torch.zeros(3, 10), torch.zeros(3, 10)

    for _ in range(times):
        values = torch.randn(3, 10, generator=source)
        whole += values
        arrived += sent(feedback, values, where, text)

    torch.testing.assert_close(arrived + feedback.add(torch.zeros(3, 10), where), whole, rtol=0, atol=1e-4)


def test_a_number_too_small_to_cross_at_once_crosses_later() -> None:
    feedback = ErrorFeedback(1)
    values = torch.tensor([[1.0, *[0.4] * 9]])

    arrived = sum(sent(feedback, values, positions(0)) for _ in range(200)) / 200

    torch.testing.assert_close(torch.as_tensor(arrived), values, rtol=0.1, atol=0)


def test_a_state_brings_back_what_was_left() -> None:
    first, second = ErrorFeedback(3), ErrorFeedback(3)
    first.keep(torch.tensor([[0.5, 0.0]]), positions(1))

    state = first.state_dict()
    second.load_state_dict(state)
    second.keep(torch.zeros(1, 2), positions(1))

    assert first.add(torch.zeros(1, 2), positions(1)).tolist() == [[0.5, 0.0]]
    assert second.add(torch.zeros(1, 2), positions(1)).tolist() == [[0.0, 0.0]]


def test_the_state_of_a_beginning_forgets_what_was_left() -> None:
    feedback = ErrorFeedback(3)
    beginning = feedback.state_dict()
    feedback.keep(torch.ones(1, 2), positions(1))

    feedback.load_state_dict(beginning)

    assert torch.equal(feedback.add(torch.zeros(1, 2), positions(1)), torch.zeros(1, 2))


def test_a_state_goes_into_a_checkpoint_without_code(tmp_path: object) -> None:
    feedback = ErrorFeedback(3)
    feedback.keep(torch.ones(1, 2), positions(1))
    torch.save(feedback.state_dict(), f"{tmp_path}/state.pt")

    state = torch.load(f"{tmp_path}/state.pt", weights_only=True)

    assert torch.equal(state["left"], torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))


def test_the_state_of_other_samples_is_refused() -> None:
    feedback = ErrorFeedback(3)
    feedback.keep(torch.ones(1, 2), positions(1))

    with pytest.raises(ConfigError, match="holds what was left of 3 samples; expected 4, as there are"):
        ErrorFeedback(4).load_state_dict(feedback.state_dict())

"""Proofs of streams, step and shots hold, and see seeded bugs."""

from __future__ import annotations

import pytest

from synth import prove
from synth.prove_shots import SHOT_BUGS, SHOT_PROPERTIES, SHOT_SIZES, ShotMiter
from synth.prove_streams import (
    RECEIVER_BUGS,
    RECEIVER_PROPERTIES,
    RECEIVER_SIZES,
    SENDER_BUGS,
    SENDER_PROPERTIES,
    SENDER_SIZES,
    STEP_BUGS,
    STEP_PROPERTIES,
    STEP_SIZES,
    ReceiverStreamMiter,
    SenderMiter,
    StepMiter,
)

SUBJECTS = {
    "receiver": (ReceiverStreamMiter, RECEIVER_SIZES, RECEIVER_PROPERTIES, RECEIVER_BUGS),
    "sender": (SenderMiter, SENDER_SIZES, SENDER_PROPERTIES, SENDER_BUGS),
    "step": (StepMiter, STEP_SIZES, STEP_PROPERTIES, STEP_BUGS),
    "shots": (ShotMiter, SHOT_SIZES, SHOT_PROPERTIES, SHOT_BUGS),
}
each = pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)


@each
def test_proved_at_every_size(subject):
    miter, sizes, properties, _ = subject
    for params in sizes:
        design = prove._Design.of(miter(params))
        assert prove._prove(design, (*properties, "helper_ok"), from_reset=True)


@each
def test_interesting_state_is_reached(subject):
    miter, sizes, _, _ = subject
    assert prove._reach(prove._Design.of(miter(sizes[0])), 14, from_reset=True)


@each
def test_seeded_bugs_are_found(subject):
    """One of each property, as a trace; every one fits the source."""
    miter, sizes, properties, bugs = subject
    assert set(bugs) == set(properties)
    for name, own in bugs.items():
        design = prove._Design.of(miter(sizes[0], own[0]))
        assert prove._find(design, (name,), 14, from_reset=True), own[0].name
        for bug in own[1:]:
            prove._component(bug.component, bug)

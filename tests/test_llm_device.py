"""A mapped layer through the driver: the same numbers as the tensors give."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tests run two at a time
transformers = pytest.importorskip("transformers")

from sim.llm.device import DeviceAttention, connect_functional  # noqa: E402
from sim.llm.mapping import calibrate  # noqa: E402
from sim.llm.recipe import Recipe  # noqa: E402
from tests.test_llm_mapping import layer_inputs  # noqa: E402


def mapped(**levers):
    q, k, v, projection = layer_inputs(tokens=48)
    recipe = Recipe(columns=16, **levers)
    return calibrate(q, k, v, projection, scale=0.25, recipe=recipe), q[:1], k[:1], v[:1]


@pytest.mark.parametrize("shots", (1, 2, 3))
def test_devices_give_what_tensors_give(shots):
    layer, q, k, v = mapped(shots=shots)
    device = DeviceAttention(layer, connect_functional, tokens=48)
    expected = layer.attend(q, k, v, exact=True)
    torch.testing.assert_close(device.attend(q, k, v), expected, rtol=1e-4, atol=1e-4)
    on_device = 48 - layer.recipe.sinks
    assert device.integers == 4 * on_device * layer.recipe.lanes(16)
    # Once more, token by token as generation does, after a prompt.
    parts = [device.attend(q[:, :, :10], k[:, :, :10], v[:, :, :10])]
    for token in range(10, 20):
        upto = slice(0, token + 1)
        parts.append(device.attend(q[:, :, token : token + 1], k[:, :, upto], v[:, :, upto]))
    got = torch.cat(parts, dim=2)
    torch.testing.assert_close(got, expected[:, :, :20], rtol=1e-4, atol=1e-4)
    device.close()


def test_errors_are_clear():
    layer, q, k, v = mapped()
    with pytest.raises(ValueError, match=r"tokens must be in 1..1024, the window, not 2000"):
        DeviceAttention(layer, connect_functional, tokens=2000)
    device = DeviceAttention(layer, connect_functional, tokens=48)
    with pytest.raises(ValueError, match="batch must be 1"):
        device.attend(*(x.expand(2, -1, -1, -1) for x in (q, k, v)))

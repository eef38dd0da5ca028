import logging

import pytest

from cfrec.devices import choose_device, list_devices
from cfrec.errors import DeviceError


def test_the_cpu_is_always_there_and_missing_devices_say_why():
    devices = {d.name: d for d in list_devices()}
    assert devices["cpu"].available
    assert all(d.reason for d in devices.values() if not d.available)
    assert "mps" in devices
    assert any(name.startswith("cuda") for name in devices)


def test_auto_says_what_it_chose(caplog):
    with caplog.at_level(logging.INFO):
        chosen = choose_device("auto")
    assert chosen.available
    assert f"using {chosen.name}" in caplog.text


@pytest.mark.parametrize("wanted", ["tpu", "cuda:99", ""])
def test_what_is_not_there_is_refused_with_what_is(wanted):
    with pytest.raises(DeviceError, match=r"cannot be used: .*Use auto, or one that is ready .*mps: it|mps: the .*cpu: ready"):
        choose_device(wanted)

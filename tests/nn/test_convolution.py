import os
import subprocess
import sys


def test_depthwise_in_bfloat16_returns_with_two_threads() -> None:
    """It once never did: torch's channels-last kernel hung, and with it every training in bf16 on two cores."""
    code = (
        "import torch; torch.set_num_threads(2)\n"
        "from sonorant.nn.convolution import DepthwiseConv\n"
        "conv = DepthwiseConv(144, 15)\n"
        "values = torch.randn(7, 110, 144, requires_grad=True)\n"
        "with torch.autocast('cpu', torch.bfloat16):\n"
        "    out = conv(values, torch.full((7,), 110))\n"
        "out.float().sum().backward()\n"
        "print(bool(out.isfinite().all() and values.grad.isfinite().all()))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.strip() == "True"

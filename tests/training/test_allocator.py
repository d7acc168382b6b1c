import subprocess
import sys


def test_the_tuned_allocator_keeps_memory_and_computes_the_same() -> None:
    code = """
import resource, torch
from lwddpm.training.allocator import tune_allocator
taken = tune_allocator()
def work():
    return sum(torch.ones(2**22).mul_(i).sum().item() for i in range(30))
first = work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert work() == first
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert not taken or faults < 4096, faults  # untuned, each round maps its 16 MiB anew: 30 x 4096 faults
"""
    subprocess.run([sys.executable, "-c", code], check=True)

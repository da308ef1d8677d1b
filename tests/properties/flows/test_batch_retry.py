"""Which exceptions say that memory is out, and which that the accelerator is broken."""

import pytest

from veridical.flows.captioning import batch_retry


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_all_that_devices_say_when_memory_is_out_is_known(error, memory):
    assert batch_retry.out_of_memory(error) is memory
    assert batch_retry.is_broken(error) is (not memory and isinstance(error, RuntimeError))

"""The ARM processors that QEMU emulates for `make arm` and `make image`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """A processor that QEMU emulates.

    Attributes:
        name: as people know it.
        features: what Linux shows of it in /proc/cpuinfo. ONNX Runtime chooses its kernels by that
            file, and QEMU shows the one of this machine.
        variant: of the implementation, from the same file.
        part: number of the core, from the same file.
    """

    name: str
    features: str
    variant: str
    part: str

    def cpuinfo(self) -> str:
        """Return /proc/cpuinfo with two cores."""
        return "\n".join(
            f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {self.features}\n"
            f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {self.variant}\n"
            f"CPU part\t: {self.part}\nCPU revision\t: 1\n"
            for core in range(2)
        )


PROCESSORS = {
    "cortex-a72": Processor(
        "Cortex-A72 (Raspberry Pi 4, no dot products)",
        "fp asimd evtstrm crc32 cpuid",
        "0x0",
        "0xd08",
    ),
    "cortex-a76": Processor(
        "Cortex-A76 (Raspberry Pi 5, dot products)",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
        "0x4",
        "0xd0b",
    ),
}

"""Write the CPU's operator table from the kernels of the installed ONNX Runtime.

python benchmarks/operator_tables.py > export/edge_ad_export/tables/cpu.json

With onnxruntime-gpu and `--provider CUDAExecutionProvider` it writes CUDA's.
"""

import json
from collections import defaultdict

import click
from onnx import defs
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

OPSET = 18
NO_END = 2**31 - 1


@click.command()
@click.option("--provider", default="CPUExecutionProvider", show_default=True)
def main(provider: str) -> None:
    """Print JSON: operator -> type name -> types."""
    table: dict[str, dict[str, set[str]]] = {}
    for kernel in get_all_opkernel_def():
        name = kernel.op_name
        if kernel.provider != provider or kernel.domain != "" or not defs.has(name, OPSET, ""):
            continue
        since = defs.get_schema(name, OPSET).since_version
        start, end = kernel.version_range
        # ONNX Runtime's rule: a kernel without an end is for the one version that it names.
        if start != since and not (start <= since <= end < NO_END):
            continue
        types = table.setdefault(name, defaultdict(set))
        for type_name, kinds in kernel.type_constraints.items():
            types[type_name] |= {kind.removeprefix("tensor(").removesuffix(")") for kind in kinds}
    lines = [
        f"{json.dumps(name)}: {json.dumps({key: sorted(kinds) for key, kinds in types.items()})}"
        for name, types in sorted(table.items())
    ]
    click.echo("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()

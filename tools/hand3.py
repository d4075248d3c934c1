import re
def sub(p,*pairs):
    s=open(p).read()
    for a,b in pairs:
        assert a in s,(p,a)
        s=s.replace(a,b)
    open(p,'w').write(s)
sub('src/avcap/model/average.py',('tensors = [{v0_1.weight_name(name): tensor for name, tensor in load_file(file).items()} for file in files]','tensors = [read_weights(file) for file in files]'),('''def _average_file(''','''def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """A model's safetensors file -> its weights under their names of today; all of it is read."""
    return {v0_1.weight_name(name): tensor for name, tensor in load_file(file).items()}


def _average_file('''))
for p in ('tests/stages/test_rounds.py','tests/stages/test_rebirth.py','tests/test_cli_dpo.py','tests/stages/test_audit_audio.py'):
    s=open(p).read()
    s=re.sub(r'load_file\((find_checkpoint\("tiny-sft"\)|parent|folder) / "model\.safetensors"\)',r'read_weights(\1 / "model.safetensors")',s)
    i=s.index('from avcap.'); s=s[:i]+'from avcap.model.average import read_weights\n'+s[i:]
    open(p,'w').write(s)

import subprocess,sys,tokenize,re,collections,pathlib
root=pathlib.Path(sys.argv[1])
OLD="picture pictures eye eyes sound sounds heard ear ears deaf blind speech compat published lesson lessons teach teacher teachers taught practise slot slots prefer gate standing standings strange anchor anchors material foreign untrusted proxy embedded shipped collapse reference references track tracks wanted number place places".split()
PIECE=re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
w=collections.defaultdict(collections.Counter)
for f in subprocess.run(['git','-C',root,'ls-files','*.py'],capture_output=True,text=True).stdout.split():
    if 'v0_1' in f or 'avcap/world/' in f or 'tests/world' in f or not (root/f).exists(): continue
    with open(root/f,'rb') as h:
        for t in tokenize.tokenize(h.readline):
            if t.type==tokenize.NAME:
                ps=[p.lower() for c in t.string.split('_') for p in PIECE.findall(c)]
                if set(ps)&set(OLD) and not {'reference','caption'}<=set(ps) and not {'feature','tracks'}<=set(ps): w[t.string][f.replace('src/avcap/','')]+=1
for n in sorted(w): print(n,sum(w[n].values()),list(w[n])[:5])

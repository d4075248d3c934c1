import re,sys,tokenize,collections,subprocess,pathlib
root=pathlib.Path(sys.argv[1]); words=sys.argv[2].split('|')
def parts(n):
    return [p.lower() for s in n.split('_') for p in re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[A-Z]+',s)]
names=collections.Counter(); where=collections.defaultdict(set)
for f in subprocess.run(['git','-C',root,'ls-files','*.py'],capture_output=True,text=True).stdout.split():
    with open(root/f,'rb') as h:
        for t in tokenize.tokenize(h.readline):
            if t.type==tokenize.NAME:
                if any(p in words for p in parts(t.string)):
                    names[t.string]+=1; where[t.string].add(f)
for n,c in sorted(names.items()): print(n,c,','.join(sorted(x.replace('src/avcap/','').replace('tests/','t/') for x in where[n])[:4]),'+%d'%(len(where[n])-4) if len(where[n])>4 else '')

"""One vocabulary: python rename.py CHECKOUT. Applies every mechanical part of the table; idempotent; prints what is left open."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

from tables import (
    CALL_KEYWORDS, EXACT, FILE_MOVES, KEEP, LITERALS, LITERALS_AT, NAMES_AT, ONCE, PARTS, PRE, SCOPED, STRING_RULES, TEXT_FILES,
    UNTOUCHED, WORLD,
)

ROOT = Path(sys.argv[1]).resolve()
notes: list[str] = []


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


def files() -> list[str]:
    found = git("ls-files", "-co", "--exclude-standard").splitlines()
    return [f for f in found if (ROOT / f).is_file() and not any(re.match(p, f) for p in UNTOUCHED)]


# --- moves ------------------------------------------------------------------------------------------------------------


def move_files() -> dict[str, str]:
    """Moves files by the table -> old module -> new module, for all moves of the table that are done."""
    modules = {}
    for pattern, new in FILE_MOVES:
        for path in git("ls-files", "-co", "--exclude-standard").splitlines():
            if re.fullmatch(pattern, path) and (ROOT / path).is_file():
                target = re.sub(pattern, new, path)
                (ROOT / target).parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / target).exists():
                    notes.append(f"{path}: {target} exists already")
                    continue
                try:
                    git("mv", path, target)
                except subprocess.CalledProcessError:
                    (ROOT / path).rename(ROOT / target)
                if path.startswith("src/avcap/") and path.endswith(".py"):
                    modules[dotted(path)] = dotted(target)
                elif path.startswith("tests/") and path.endswith(".py") or path.startswith("bench/"):
                    modules[Path(path).stem] = Path(target).stem
                modules[path.removeprefix("src/avcap/")] = target.removeprefix("src/avcap/")
    return modules


def dotted(path: str) -> str:
    return path.removeprefix("src/").removesuffix(".py").replace("/", ".")


# --- identifiers ------------------------------------------------------------------------------------------------------

PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def rename(name: str, path: str) -> str:
    """An identifier in a file -> its new name."""
    for pattern, table in NAMES_AT:
        if name in table and re.search(pattern, path):
            return table[name]
    if name in KEEP:
        return name
    if re.search(WORLD, path):
        return (EXACT.get(name) or by_parts(name, path)) if name in WORLD_EXACT else name
    if name in EXACT:
        return EXACT[name]
    return by_parts(name, path)


WORLD_EXACT = {
    "PICTURE_PROMPT", "SOUND_PROMPT", "slot_prompt", "slot_truth", "render_sound", "picture_HW3", "SOUND_BITS_PER_S",
    "_mux_sound", "decode_sound", "wanted", "wanted_S", "num_wanted", "heard_S",
}


def by_parts(name: str, path: str) -> str:
    leading = re.match(r"_*", name).group()
    chunks = []
    for chunk in name[len(leading) :].split("_"):
        pieces = PIECE.findall(chunk)
        if "".join(pieces) != chunk or not pieces:
            chunks.append(chunk)
            continue
        out = []
        for piece in pieces:
            new = next((t[piece.lower()] for p, t in PARTS if piece.lower() in t and re.search(p, path)), None)
            if new is None:
                out.append(piece)
            elif piece.isupper() and len(piece) > 1:
                out.append(new.upper())
            elif piece[0].isupper():
                out.append("".join(w.capitalize() for w in new.split("_")))
            else:
                out.append(new)
        chunks.append("".join(out))
    new = leading + "_".join(chunks)
    return re.sub(r"(?<=_)a_(?=audio|example|official)", "an_", new) if new != name and name.startswith("test_") else new


# --- python files -----------------------------------------------------------------------------------------------------


def scopes(source: str, path: str) -> list[tuple[int, int, str, str]]:
    """(first line, last line, old, new) of names that mean something else in one function."""
    found = []
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for f in functions:
        for pattern, name, table in SCOPED:
            if f.name == name and re.search(pattern, path):
                found += [(f.lineno, f.end_lineno, old, new) for old, new in table.items()]
        names = {n.id for n in ast.walk(f) if isinstance(n, ast.Name)} | {a.arg for a in ast.walk(f) if isinstance(a, ast.arg)}
        both = [old for old in ("number", "place") if old in names and is_index(f, old)]
        for old in both:
            if not re.search(WORLD, path) and not any(f.name == name and old in t and re.search(p, path) for p, name, t in SCOPED):
                if "index" in names or len(both) > 1:
                    notes.append(f"{path}:{f.lineno} {f.name}: {old} is an index, but index is taken")
                else:
                    found.append((f.lineno, f.end_lineno, old, "index"))
    return found


def is_index(f: ast.FunctionDef, old: str) -> bool:
    """Every binding of the name in the function counts from 0."""
    good = bad = 0
    for n in ast.walk(f):
        if isinstance(n, ast.For | ast.comprehension):
            target = n.target
            call = n.iter if isinstance(n.iter, ast.Call) else None
            fn = call.func.id if call and isinstance(call.func, ast.Name) else ""
            first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
            bound = {x.id for x in ast.walk(target) if isinstance(x, ast.Name)}
            if old in bound:
                zero = fn == "enumerate" and not call.keywords and len(call.args) == 1 or fn == "range" and len(call.args) == 1
                is_first = isinstance(first, ast.Name) and first.id == old
                good += zero and is_first
                bad += not (zero and is_first)
        elif isinstance(n, ast.arg) and n.arg == old:
            bad += 1
        elif isinstance(n, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            targets = n.targets if isinstance(n, ast.Assign) else [n.target]
            bad += any(isinstance(x, ast.Name) and x.id == old for t in targets for x in ast.walk(t))
    return bool(good) and not bad


NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)*")


def rename_code(code: str, path: str, line: int, scoped) -> str:
    """A fragment of code (inside an f-string) -> renamed."""
    out, last = [], 0
    # strings inside stay
    for m in re.finditer(r"'[^']*'|\"[^\"]*\"|[A-Za-z_]\w*", code):
        text = m.group()
        if text[0] in "'\"":
            new = text[0] + literal(text[1:-1], path, code) + text[0]
        else:
            new = token_name(text, path, line, scoped, is_attribute=code[m.start() - 1 : m.start()] == ".")
        out += [code[last : m.start()], new]
        last = m.end()
    return "".join(out) + code[last:]


def token_name(text: str, path: str, line: int, scoped, *, is_attribute: bool = False) -> str:
    for first, end, old, new in scoped:
        if text == old and first <= line <= end and not is_attribute:
            return new
    return rename(text, path)


def literal(value: str, path: str, context: str) -> str:
    """The value of a string literal -> the new one."""
    for pattern, table in LITERALS_AT:
        if value in table and re.search(pattern, path):
            return table[value]
    if re.search(r"judge/prompts\.py$|judge_transcript", path):
        return value
    if value in LITERALS:
        return LITERALS[value]
    if re.fullmatch(r"[\w.]+(\[[\w., \[\]]*\])?( \| \w+)?", value) and re.match(r".*[A-Z][a-z]", value) and " " not in value.replace(", ", "").replace(" | ", ""):
        return re.sub(r"[A-Za-z_]\w*", lambda m: rename(m.group(), path), value) if re.search(r"[a-z][A-Z]|\[", value) else value
    if value in ("sound", "picture") and not re.search(WORLD, path) and '"count"' not in context:
        return {"sound": "audio", "picture": "video"}[value]
    if re.fullmatch(r"\.?[A-Za-z][\w.]*", value) and "_" in value and not re.search(r"\.(json|jsonl|py|md|mp4|m4a|txt|yaml|safetensors|npz|png)$", value):
        if re.search(WORLD, path):
            return value
        return ".".join(rename(part, path) if part else part for part in value.split("."))
    return value


def string(token: str, path: str, line: int, scoped, context: str, is_docstring: bool) -> str:
    m = re.match(r"([A-Za-z]*)(\"\"\"|'''|\"|')", token)
    prefix, quote = m.group(1), m.group(2)
    body = token[m.end() : -len(quote)]
    if is_docstring:
        return token[: m.end()] + prose(body, path) + quote
    if "f" in prefix.lower():
        body = fstring(body, path, line, scoped)
    else:
        body = literal(body, path, context)
    if not re.search(r"judge/prompts\.py$", path):
        for pattern, old, new in STRING_RULES:
            if re.search(pattern, path):
                body = re.sub(old, new, body)
        body = backticks(body, path)
    return token[: m.end()] + body + quote


def fstring(body: str, path: str, line: int, scoped) -> str:
    out, i = [], 0
    while i < len(body):
        c = body[i]
        if c == "{" and body[i : i + 2] != "{{":
            depth, j, q = 1, i + 1, None
            while depth:
                d = body[j]
                if q:
                    q = None if d == q else q
                elif d in "'\"":
                    q = d
                elif d in "{[(":
                    depth += 1
                elif d in "}])":
                    depth -= 1
                j += 1
            inner = body[i + 1 : j - 1]
            code, colon, spec = split_spec(inner)
            spec = fstring(spec, path, line, scoped) if "{" in spec else spec
            out.append("{" + rename_code(code, path, line, scoped) + colon + spec + "}")
            i = j
        elif body[i : i + 2] in ("{{", "}}"):
            out.append(body[i : i + 2])
            i += 2
        else:
            out.append(c)
            i += 1
    return "".join(out)


def split_spec(inner: str) -> tuple[str, str, str]:
    depth, q = 0, None
    for k, d in enumerate(inner):
        if q:
            q = None if d == q else q
        elif d in "'\"":
            q = d
        elif d in "([{":
            depth += 1
        elif d in ")]}":
            depth -= 1
        elif not depth and (d == ":" or d == "!" and inner[k + 1 : k + 2] != "="):
            return inner[:k], d, inner[k + 1 :]
    return inner, "", ""


def backticks(text: str, path: str) -> str:
    """`names` and `paths.py` inside prose -> renamed."""

    def one(m: re.Match) -> str:
        inner = m.group(1)
        if re.search(WORLD, path) and not any(name in inner for name in WORLD_EXACT):
            return m.group()

        def word(w: re.Match) -> str:
            t = w.group()
            return rename(t, path) if "_" in t or re.search(r"[a-z][A-Z]|^[A-Z][a-z]", t) or t in BACKTICKED else t

        return "`" + re.sub(r"(?<![\w/.-])[A-Za-z_]\w*(?![\w/-]|\.(py|json|jsonl|md|yaml))", word, inner) + "`"

    return re.sub(r"`([^`\n]+)`", one, text)


BACKTICKED = {"prefer", "compat", "anchor", "proxy", "teach", "practise", "eyes", "ears", "slots"}


def prose(text: str, path: str) -> str:
    for pattern, old, new in STRING_RULES:
        if pattern == "PROSE" or pattern == "":
            text = re.sub(old, new, text)
    # names with an underscore or in CamelCase are names wherever they stand
    def word(m: re.Match) -> str:
        t = m.group()
        if re.search(WORLD, path) and t not in WORLD_EXACT:
            return t
        return rename(t, path)

    text = re.sub(r"(?<![\w/.-])(?:[A-Za-z]\w*_\w+|_[a-z]\w*|[A-Z][a-z]+[A-Z]\w*)\b(?!\.(?:json|jsonl|py|md|yaml)\b)", word, text)
    return backticks(text, path)


def rewrite_python(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    new = source
    for pattern, old, repl in PRE:
        if re.search(pattern, path):
            new = re.sub(old, repl, new, flags=re.M)
    new = call_keywords(new)
    scoped = scopes(new, path)
    lines = new.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    docs = docstring_lines(new)
    edits = []
    previous = None
    for t in tokenize.generate_tokens(io.StringIO(new).readline):
        a, b = starts[t.start[0] - 1] + t.start[1], starts[t.end[0] - 1] + t.end[1]
        text = new[a:b]
        if t.type == tokenize.NAME:
            out = token_name(text, path, t.start[0], scoped, is_attribute=new[a - 1 : a] == ".")
        elif t.type == tokenize.STRING:
            out = string(text, path, t.start[0], scoped, t.line, t.start[0] in docs)
        elif t.type == tokenize.COMMENT:
            out = prose(text, path)
        else:
            out = text
        if out != text:
            edits.append((a, b, out))
    for a, b, out in reversed(edits):
        new = new[:a] + out + new[b:]
    new = new.replace("__KEEP", "")
    if new != source:
        (ROOT / path).write_text(new, encoding="utf-8")


def call_keywords(source: str) -> str:
    """Keywords of certain calls have names of their own."""
    for call, table in CALL_KEYWORDS:
        for m in reversed(list(re.finditer(rf"\b(?:{call})\(", source))):
            depth, j = 1, m.end()
            while depth and j < len(source):
                depth += {"(": 1, ")": -1}.get(source[j], 0)
                j += 1
            inner = source[m.end() : j]
            for old, new in table.items():
                inner = re.sub(rf"\b{old}(?=\s*=[^=])", new, inner)
            source = source[: m.end()] + inner + source[j:]
    return source


def docstring_lines(source: str) -> set[int]:
    """Lines where a string begins that is an expression statement of its own."""
    return {
        n.value.lineno for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
    }


# --- other files ------------------------------------------------------------------------------------------------------


def rewrite_text(path: str) -> None:
    try:
        source = (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    new = source
    for pattern, old, repl in PRE:
        if re.search(pattern, path):
            new = re.sub(old, repl, new)
    for pattern, old, repl in TEXT_FILES:
        if re.search(pattern, path):
            new = re.sub(old, repl, new, flags=re.M)
    if path.endswith(".md"):
        new = backticks(new, path)
        new = re.sub(r"(?m)^(    |```).*$", lambda m: m.group() if m.group().startswith("```") else code_line(m.group(), path), new)
        new = "".join(code_line(part, path) if k % 2 else part for k, part in enumerate(re.split(r"(```.*?```)", new, flags=re.S)))
    elif path.endswith((".sh", "Makefile", ".html", ".toml", ".yml", ".yaml")):
        new = code_line(new, path)
    if new != source:
        (ROOT / path).write_text(new, encoding="utf-8")


def code_line(text: str, path: str) -> str:
    return re.sub(r"(?<![\w/.-])(?:[a-z]\w*_\w+|[A-Z][a-z]+[A-Z]\w*)\b(?!\.(?:json|jsonl|py|md|yaml|mp4))", lambda m: rename(m.group(), path), text)


def rewrite_modules(modules: dict[str, str]) -> None:
    """Old module names and paths of moved files -> new ones, in all text."""
    if not modules:
        return
    alternatives = []
    for old in sorted(modules, key=len, reverse=True):
        if "/" in old:
            alternatives.append(rf"(?<![\w/]){re.escape(old)}\b")
        elif "." in old:
            alternatives.append(rf"\b{re.escape(old)}\b(?!\.py)")
        else:
            alternatives.append(rf"(?<=from ){re.escape(old)}(?= import)|(?<=import ){re.escape(old)}$")
    pattern = "|".join(alternatives)
    for path in files():
        try:
            source = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        new = re.sub(pattern, lambda m: modules[m.group()], source, flags=re.M)
        if new != source:
            (ROOT / path).write_text(new, encoding="utf-8")


# --- layout -----------------------------------------------------------------------------------------------------------


def tidy() -> None:
    ruff = next((p for p in (ROOT / ".venv/bin/ruff", Path("/tmp/h/vocab/.venv/bin/ruff")) if p.exists()), None)
    if ruff is None:
        notes.append("no ruff: imports are not sorted, long lines are as they are")
        return
    subprocess.run([str(ruff), "check", "--fix", "--select", "I,F401,RUF022", "-q", "."], cwd=ROOT)
    for _ in range(3):
        found = subprocess.run([str(ruff), "check", "--select", "E501", "--output-format", "concise", "."], cwd=ROOT, capture_output=True, text=True).stdout
        places = [m.groups() for m in re.finditer(r"^([^:\n]+):(\d+):\d+: E501", found, re.M)]
        if not places:
            break
        by_file: dict[str, set[int]] = {}
        for file, line in places:
            by_file.setdefault(file, set()).add(int(line))
        for file, long in by_file.items():
            wrap(file, long, ruff)
    left = subprocess.run([str(ruff), "check", "--output-format", "concise", "."], cwd=ROOT, capture_output=True, text=True).stdout
    notes.extend(line for line in left.splitlines() if re.match(r".*:\d+:\d+:", line))


def wrap(file: str, long: set[int], ruff: Path) -> None:
    path = ROOT / file
    source = path.read_text(encoding="utf-8")
    lines = source.split("\n")
    tree = ast.parse(source)
    strings, comments = set(), set()
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.type == tokenize.STRING and t.string.lstrip("rRbBfF").startswith(('"""', "'''")):
            strings.update(range(t.start[0], t.end[0] + 1))
        if t.type == tokenize.COMMENT and lines[t.start[0] - 1].strip().startswith("#"):
            comments.add(t.start[0])
    needs_format = False
    for number in sorted(long, reverse=True):
        line = lines[number - 1]
        indent = re.match(r"\s*", line).group()
        if number in comments:
            cut = line.rfind(" ", 0, 120)
            lines[number - 1 : number] = [line[:cut], f"{indent}# {line[cut + 1 :]}"]
        elif number in strings:
            cut = line.rfind(" ", 0, 120)
            if cut <= len(indent):
                continue
            rest = line[cut + 1 :]
            nxt = lines[number] if number < len(lines) else ""
            if number + 1 in strings and re.match(rf"{indent}[^\s|]", nxt) and len(indent + rest + " " + nxt.strip()) <= 120 and not nxt.strip().startswith(('"""', "-")):
                lines[number - 1 : number + 1] = [line[:cut], f"{indent}{rest} {nxt.strip()}"]
            else:
                lines[number - 1 : number] = [line[:cut], f"{indent}{rest}"]
        elif wrapped := wrap_string(line):
            if len(wrapped) == 2 and (joined := join_string(wrapped[1], lines[number])):
                lines[number - 1 : number + 1] = [wrapped[0], joined]
            else:
                lines[number - 1 : number] = wrapped
        else:
            needs_format = True
            statement = min((n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= number <= n.end_lineno), key=lambda n: n.end_lineno - n.lineno)
            for k in range(statement.lineno - 1, min(statement.end_lineno + 1, len(lines))):
                if "# fmt: skip" in lines[k]:
                    lines[k] = lines[k].replace("  # fmt: skip", "")
            header = [k for k in range(statement.lineno - 1, statement.end_lineno) if lines[k].rstrip().endswith(":  # fmt: skip")]
            for k in header:
                lines[k] = lines[k].replace("  # fmt: skip", "")
    path.write_text("\n".join(lines), encoding="utf-8")
    if needs_format:
        subprocess.run([str(ruff), "format", "-q", file], cwd=ROOT)


def wrap_string(line: str) -> list[str] | None:
    """A line that is too long for its last string -> the string in two pieces."""
    if m := re.fullmatch(r'(\s*)([rf]?)"((?:[^"\\]|\\.)*)"([,)\]]*)', line):
        indent, prefix, body, end = m.groups()
        first, rest = cut(body, 117 - len(indent) - len(prefix))
        return [f'{indent}{prefix}"{first} "', f'{indent}{prefix}"{rest}"{end}'] if rest else None
    if m := re.fullmatch(r'(\s*)((?:raise|return|yield|\w+ = )?\s*[\w.]*\()([rf]?)"((?:[^"\\]|\\.)*)"(\)(?: from \w+)?)', line):
        indent, head, prefix, body, end = m.groups()
        inner = indent + "    "
        if len(inner) + len(prefix) + len(body) + 2 <= 120:
            return [f"{indent}{head}", f'{inner}{prefix}"{body}"', f"{indent}{end}"]
        first, rest = cut(body, 117 - len(inner) - len(prefix))
        return [f"{indent}{head}", f'{inner}{prefix}"{first} "', f'{inner}{prefix}"{rest}"', f"{indent}{end}"] if rest else None
    return None


def join_string(rest: str, following: str) -> str | None:
    """The end of a piece and the piece after it -> one piece, if it is short enough."""
    a, b = (re.fullmatch(r'(\s*)(f?)"(.*)"([,)\]]*)', line) for line in (rest, following))
    if not (a and b) or a.group(1) != b.group(1) or a.group(4):
        return None
    if a.group(2) != b.group(2) and ("{" in a.group(3) + b.group(3)) and not (b.group(2) and "{" not in a.group(3)):
        return None
    joined = f'{b.group(1)}{b.group(2)}"{a.group(3).rstrip()} {b.group(3)}"{b.group(4)}'
    return joined if len(joined) <= 120 else None


def cut(body: str, most: int) -> tuple[str, str]:
    depth, at = 0, -1
    for k, c in enumerate(body):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == " " and not depth and k <= most:
            at = k
    return (body[:at], body[at + 1 :]) if at > 0 else (body, "")


def main() -> None:
    if not (ROOT / "src/avcap/stages/prefer.py").exists():  # the words that change places have changed them
        for name in ONCE:
            EXACT.pop(name, None)
        del FILE_MOVES[[p for p, _ in FILE_MOVES].index(r"(src/avcap/stages)/dpo\.py")]
    modules = move_files()
    rewrite_modules(modules)
    for path in files():
        if path.endswith(".py"):
            rewrite_python(path)
        else:
            rewrite_text(path)
    tidy()
    print("\n".join(notes))


main()

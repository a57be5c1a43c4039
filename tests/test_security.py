"""What no source file of the project may do: unpickle, evaluate, unpack, hand texts to a shell."""

import ast
import re

import pytest

from tests.weights import ROOT

FOLDERS = ("src", "workflow", "benchmarks", "examples")
# Run what they read, or write where what they read says.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "dill.load", "joblib.load", "pandas.read_pickle", "pd.read_pickle",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all",
    "shutil.unpack_archive", "tarfile.open", "tarfile.TarFile",
    "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
OURS = ("attention.extract",)  # cross-attention out of a model
# What a call must say, in so many words; the libraries' defaults differ by version.
REQUIRED = {
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
    "np.lib.format.read_array": ("allow_pickle", "False"),
    "np.lib.format.write_array": ("allow_pickle", "False"),
    "torch.load": ("weights_only", "True"),
    "np.save": ("allow_pickle", "False"),
    "Environment": ("autoescape", "True"),
}


def sources():
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]


def offences(text):
    """Return what a source text does that it must not."""
    tree = ast.parse(text)
    safe = safe_loaders(tree)
    return [
        told
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for told in offences_of_call(call, safe)
    ]


def offences_of_call(call, safe):
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in FORBIDDEN or (name.endswith((".extractall", ".extract")) and name not in OURS):
        yield name
    if name in REQUIRED:
        key, value = REQUIRED[name]
        if given.get(key) != value:
            yield f"{name} without {key}={value}"
    if name in ("yaml.load", "yaml.parse") and given.get("Loader") not in safe:
        yield f"{name} without a safe loader"
    if given.get("shell", "False") != "False":
        yield f"{name} with a shell"
    if given.get("weights_only", "True") != "True" or given.get("allow_pickle", "False") != "False":
        yield f"{name} with pickles"
    # True or not, it is decided in one place: by the options of the table of models.
    if given.get("trust_remote_code", "False") not in ("False", "trusted"):
        yield f"{name} trusts code"
    if name.startswith("subprocess.") and call.args and not is_list(call.args[0]):
        yield f"{name} of a text"
    if name == "Markup" and ast.unparse(call.args[0]) != "program":
        yield "Markup of a text that is not our own"


def is_list(argument):
    # A name must be of a list, which mypy sees to (`Sequence[str]` is also a text).
    return isinstance(argument, ast.List) or ast.unparse(argument) == "command"


def safe_loaders(tree):
    """Return the names of loaders that build plain data only."""
    names = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} <= names:
            names.add(node.name)
        if isinstance(node, ast.Assign) and "SafeLoader" in ast.unparse(node.value):
            names |= {ast.unparse(target) for target in node.targets}
    return names


def test_sources_run_nothing_that_they_read():
    found = {str(path): offences(path.read_text("utf-8")) for path in sources()}
    assert len(found) > 100
    assert {path: told for path, told in found.items() if told} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(file)",
        "eval(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "network_class.from_pretrained(path, weights_only=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=config.trusts)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "class L(yaml.Loader): pass\nyaml.load(text, Loader=L)",
        "archive.extractall(folder)",
        "archive.extract(member)",
        "tarfile.open(path)",
        "subprocess.run('ls ' + name)",
        "subprocess.run(f'ls {name}', shell=True)",
        "subprocess.run(['ls', name], shell=shell)",
        "os.system('ls')",
        "Environment(loader=loader)",
        "Markup(transcript)",
    ],
)
def test_offences_are_seen(text):
    assert offences(text)


def test_rules_have_scripts_and_no_shell():
    """Wildcards and parameters never become part of a command line."""
    texts = [path.read_text("utf-8") for path in (ROOT / "workflow" / "rules").glob("*.smk")]
    texts.append((ROOT / "Snakefile").read_text("utf-8"))
    for text in texts:
        assert not re.search(r"^\s*(shell|run|wrapper|notebook)\s*:", text, re.M)
        assert "shell(" not in text
    assert sum(text.count("    script:\n") for text in texts) >= 15


def test_templates_mark_nothing_as_safe():
    """Only the page's own program goes in as it is; its hash is in the page's policy."""
    templates = sorted((ROOT / "src/s2txai/report/templates").glob("*.j2"))
    assert templates
    for path in templates:
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*(safe|tojson)\b|autoescape", text), path
    program = (ROOT / "src/s2txai/report/templates/explorer.js").read_text("utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", program
    )

"""Whatever stands in a job file or in an override, there is a job or a ConfigError, never a traceback."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lwddpm.config import KINDS, AnyJob, DataConfig, TrainingJob
from lwddpm.config.keys import known_keys
from lwddpm.errors import ConfigError
from lwddpm.jobfile import flattened, load_job, set_value, shipped, validate_job

# re and PyYAML may warn of a text that they take all the same
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

QUICK = settings(max_examples=200, deadline=None, database=None, derandomize=True)

NAMES = ("compare_demo", "demo", "evaluate", "gan", "prepare", "sample", "search_demo")
BASES = {name: load_job(name).model_dump(mode="json") for name in NAMES}
KEYS = sorted({part for job in KINDS.values() for key in known_keys(job) for part in (key, key.partition(".")[0])})

TEXTS = (
    st.text(max_size=20)
    | st.text(alphabet="abz019/.:-_ %$~*?[({^|\\'\"#&!<=,\n\t\r\0\x7f\u2028é漢", max_size=40)
    | st.sampled_from(
        ["", " ", "a" * 250, "a" * 5000, "../" * 100, "1e400", "(" * 500, "a{99999999999}", "(?P<", "[[a]"]
    )
    | st.sampled_from(["models:/a", "models:/a@b", "models:/a/1", "phantom", "val/loss", "generator", "gan", "ddim"])
)
NUMBERS = (
    st.integers(-3, 70)
    | st.integers()
    | st.floats()
    | st.sampled_from([-0.0, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40, 5e-324, 1.7e308])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=8) | st.dates() | st.datetimes()
VALUES = st.recursive(
    SCALARS | st.sampled_from([value for base in BASES.values() for value in flattened(base).values()]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=8,
)
CHANGES = st.dictionaries(st.sampled_from(KEYS) | TEXTS, VALUES, min_size=1, max_size=4)

# Of YAML what a job never needs: tags, anchors, aliases to themselves and of aliases, odd numbers, control characters.
ODDITIES = (
    "- a",
    "a: b: c",
    "\t- a",
    "&a [*a]",
    "&a {x: *a}",
    "*missing",
    "<<: {seed: 1}",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "!!bool maybe",
    "!!int x",
    "!!int ''",
    "!!float ''",
    "!!timestamp x",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!binary '===='",
    "!!python/object:os.system x",
    "2001-99-99",
    "0x_",
    "0b_",
    "0x" + "f" * 1900,
    "9" * 4999,
    "190:20:30",
    ".nan",
    "-.inf",
    "[" * 60,
    "[" * 3000,
    "[" * 60 + "]" * 60,
    "{a: " * 3000,
    "a\0b",
    "\ufeff",
    "--- a\n--- b",
    "%YAML 9.9\n--- a",
    "{a: &a [x, x, x, x, x, x, x, x, x], b: &b [*a, *a, *a, *a, *a, *a, *a], c: &c [*b, *b, *b, *b, *b, *b, *b], "
    "d: &d [*c, *c, *c, *c, *c, *c, *c], e: &e [*d, *d, *d, *d, *d, *d, *d], f: [*e, *e, *e, *e, *e, *e, *e]}",
)


def _check_message(error: ConfigError) -> None:
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 21
    assert all(line.strip() and len(line) < 3000 for line in lines)


def _check_job(job: AnyJob) -> None:
    """A job that was taken can be identified, written down and read again."""
    again = validate_job(job.model_dump(mode="json"), "again")
    assert again == job
    assert again.digest() == job.digest()
    if isinstance(job, TrainingJob):
        assert job.training_digest()
    data = getattr(job, "data", None)
    assert data is None or (isinstance(data, DataConfig) and data.dataset_path)
    assert len(job.name.encode()) <= 200


@QUICK
@given(name=st.sampled_from(NAMES), changes=CHANGES)
def test_any_values_are_a_job_or_a_config_error(name: str, changes: dict[str, Any]) -> None:
    values = deepcopy(BASES[name])
    try:
        for key, value in changes.items():
            set_value(values, key, value)
        job = validate_job(values, "job")
    except ConfigError as error:
        _check_message(error)
    else:
        _check_job(job)


@QUICK
@given(
    name=st.sampled_from(NAMES),
    key=st.sampled_from(KEYS) | TEXTS,
    value=st.sampled_from(ODDITIES) | TEXTS,
)
def test_any_override_is_a_job_or_a_config_error(name: str, key: str, value: str) -> None:
    try:
        job = load_job(name, [f"{key}={value}"])
    except ConfigError as error:
        _check_message(error)
    else:
        _check_job(job)


@QUICK
@given(name=st.sampled_from(NAMES), line=st.integers(0, 60), text=st.sampled_from(ODDITIES) | TEXTS, cut=st.booleans())
def test_any_file_is_a_job_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, line: int, text: str, cut: bool
) -> None:
    """A shipped file with a line put in, or with a value replaced."""
    lines = (shipped("jobs") / f"{name}.yaml").read_text().splitlines()
    line = min(line, len(lines) - 1)
    lines[line] = f"{lines[line].partition(':')[0]}: {text}" if cut else f"{lines[line]}\n{text}"
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    try:
        job = load_job(str(path))
    except ConfigError as error:
        _check_message(error)
    else:
        _check_job(job)


@pytest.mark.parametrize("text", [*ODDITIES, "\ud800", "x: " + "a" * 10_000])
def test_any_text_alone_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError) as refused:
        load_job(str(path))
    _check_message(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("reference", ["a\0b", "a" * 5000, "", ".", "jobs", "/dev/null/x", "\ud800"])
def test_any_reference_that_is_no_job_is_refused(reference: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_job(reference)
    _check_message(refused.value)


def test_a_file_of_ten_thousand_values_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"kind": "train", "data": {"source": "phantom"}, "list": list(range(10_001))}))
    with pytest.raises(ConfigError, match="must hold at most 10000 values"):
        load_job(str(path))


@pytest.mark.parametrize(("name", "longest"), [("demo", 200), ("search_demo", 100), ("compare_demo", 100)])
def test_a_name_leaves_room_for_what_is_called_after_it(name: str, longest: int) -> None:
    assert load_job(name, [f"name={'a' * longest}"])
    with pytest.raises(ConfigError, match=f"name: string should have at most {longest} characters"):
        load_job(name, [f"name={'a' * (longest + 1)}"])

"""Every setting has a source, each source is where it says, and docs/configuration.md shows them."""

import re
from pathlib import Path

import pytest
from torchvision.models import resnet50
from torchvision.models.resnet import ResNet
from transformers import BertConfig

from prior_fast.cli.main import main
from prior_fast.config import PRESETS, preset
from prior_fast.config.overrides import field_names, field_value
from prior_fast.config.sources import RELEASED_FILES, SOURCES, FieldSource, Source
from prior_fast.errors import UsageError
from prior_fast.measure.page.fill import fill
from prior_fast.measure.page.settings import settings_groups

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT.parent / "shared" / "paper"
PAGE = ROOT / "docs/configuration.md"
DECISIONS = ROOT / "docs/differences.md"
PLACE = re.compile(r"\b(\w+\.(?:py|yaml)):(\d+)(?:-(\d+))?")

CITATION = re.compile(r"supplement(?:'s)?,? \(?(?:section )?(\d(?:\.\d+)?)")

# What the paper calls a value that is not a number, where this is not the value itself.
CALLED = {
    "model.text.weights": "BioClinicalBERT",
    "model.sentence_decoder.causal": "non-auto-regressive",
    "model.decoder_norm": "followed by a ReLU activation function and a batch normalization layer",
    "model.layout": "feature map",
}
# Numbers that the paper gives only as the name of a published model.
RESNET50 = {"model.image.depths", "model.image.width"}
BERT = {
    "model.text.hidden_size": "hidden_size",
    "model.text.layers": "num_hidden_layers",
    "model.text.heads": "num_attention_heads",
    "model.text.intermediate_size": "intermediate_size",
    "model.text.dropout": "hidden_dropout_prob",
    "model.text.attention_dropout": "attention_probs_dropout_prob",
    "model.text.hidden_act": "hidden_act",
    "model.text.layer_norm_eps": "layer_norm_eps",
    "model.text.positions": "max_position_embeddings",
    "model.text.token_types": "type_vocab_size",
    "model.sentence_decoder.heads": "num_attention_heads",
    "model.sentence_decoder.intermediate_size": "intermediate_size",
    "model.sentence_decoder.dropout": "hidden_dropout_prob",
}
OF_PAPER = {name: sources.paper for name, sources in SOURCES.items() if sources.paper.kind == "paper"}


def all_sources() -> list[tuple[str, Source]]:
    each = [(name, source) for name, of in SOURCES.items() for source in (of.paper, of.released, of.tiny)]
    return [(name, source) for name, source in each if source is not None]


def plain(text: str) -> str:
    """Text with single blanks, and none around hyphens: the supplement's numbers are printed as "1e - 5"."""
    return re.sub(r"\s*-\s*", "-", " ".join(text.split()))


def sections() -> dict[str, str]:
    """The text of each numbered section of the supplement, and the abstract of the paper."""
    if not PAPER.is_dir():
        pytest.skip("the paper is not beside this checkout")
    (supplement,) = (path.read_text(encoding="utf-8") for path in PAPER.glob("002*.txt"))
    body = supplement[: supplement.rindex("\nReferences\n")]
    parts = re.split(r"^(\d(?:\.\d)?)\. (?=[A-Z])", body, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], map(plain, parts[2::2]), strict=True))
    assert {"2.1", "2.2", "2.3", "2.4", "3.1", "4.2"} <= set(found)
    (page,) = (path.read_text(encoding="utf-8") for path in PAPER.glob("000*.txt"))
    found["abstract"] = plain(page.partition("\nAbstract\n")[2])
    return found


def numbers(value: object) -> list[str]:
    """The numbers of a value, as the paper writes them."""
    values = value if isinstance(value, tuple) else (value,)
    kept = [each for each in values if isinstance(each, (int, float)) and not isinstance(each, bool)]
    return [f"{each:g}".replace("e-0", "e-") for each in kept]


def test_every_field_has_a_source_and_every_source_a_field() -> None:
    assert list(SOURCES) == list(dict.fromkeys(SOURCES))
    assert sorted(SOURCES) == sorted(field_names(preset("paper")))


@pytest.mark.parametrize("other", [name for name in PRESETS if name != "paper"])
def test_a_preset_has_its_own_source_exactly_where_its_value_differs(other: str) -> None:
    paper, own = preset("paper"), preset(other)
    differ = {name for name in SOURCES if field_value(paper, name) != field_value(own, name)}
    assert {name for name, sources in SOURCES.items() if getattr(sources, other) is not None} == differ


def test_a_source_says_what_its_kind_needs() -> None:
    for name, source in all_sources():
        if source.kind == "paper":
            assert source.place and source.quote, name
        elif source.kind == "released":
            assert not source.quote and source.link.startswith("https://github.com/QtacierP/PRIOR/blob/"), name
            assert PLACE.fullmatch(source.place), name
        else:
            assert source.note and not source.place and not source.quote, name


def test_places_in_the_released_code_name_its_files() -> None:
    texts = [f"{source.place} {source.note}" for _, source in all_sources()]
    pages = "".join(page.read_text(encoding="utf-8") for page in (PAGE, DECISIONS))
    found = PLACE.findall(" ".join(texts) + pages)
    assert len(found) > 60
    for file, first, last in found:
        assert file in RELEASED_FILES, file
        assert not last or int(first) < int(last), (file, first, last)
    cited = {file for file, _, _ in found}
    assert cited == set(RELEASED_FILES)


@pytest.mark.parametrize("name", OF_PAPER)
def test_the_cited_section_has_the_quoted_words(name: str) -> None:
    source = OF_PAPER[name]
    section = sections()[source.place]
    for words in source.quote.split(" ... "):
        assert plain(words) in section, f"{source}: {words}"


@pytest.mark.parametrize("name", OF_PAPER)
def test_the_quoted_words_state_the_value(name: str) -> None:
    value, quote = field_value(preset("paper"), name), plain(OF_PAPER[name].quote)
    if name in BERT:
        assert "BioClinicalBERT" in quote
        assert value == getattr(BertConfig(), BERT[name])
    elif name in RESNET50:
        assert "ResNet50" in quote
        layers = resnet50(weights=None)
        depths = tuple(len(getattr(layers, f"layer{stage}")) for stage in (1, 2, 3, 4))
        assert isinstance(layers, ResNet) and value in (depths, layers.conv1.out_channels)
    elif numbers(value):
        for number in numbers(value):
            assert re.search(rf"(?<![\w.]){re.escape(number)}(?![\w.]*\d)", quote), (number, quote)
    elif name in CALLED:
        assert CALLED[name] in quote
    else:
        said = quote.lower()
        assert all(part in said for part in str(value).split("_")), (value, quote)


def test_every_section_that_the_project_cites_exists() -> None:
    known = sections()
    places = [path for folder in ("prior_fast", "kernels", "csrc", "bench") for path in (ROOT / folder).rglob("*.py")]
    places += [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    cited = [
        (path.name, number)
        for path in places
        for number in re.findall(CITATION, re.sub(r"\s*\n[\s#]*", " ", path.read_text(encoding="utf-8")))
    ]
    assert len(cited) > 80
    assert [(name, number) for name, number in cited if number not in known] == []


def test_a_value_that_is_not_in_the_section_is_found() -> None:
    section = sections()["2.4"]
    assert plain("a batch size of 128") in section and plain("a batch size of 64") not in section
    assert plain("a weight decay of 1e-6") in section and plain("an embedding space of dimension 768") not in section
    assert "128" not in sections()["2.2"]


def test_the_page_has_each_group_of_settings_once() -> None:
    shown = re.findall(r"^<!-- table settings (\S+) -->$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(settings_groups())


def test_the_page_is_what_the_sources_make_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fill(text, ROOT, PAGE.name) == text
    rows = re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    assert rows and sorted(rows) == sorted(SOURCES)
    monkeypatch.setitem(SOURCES, "batch_size", FieldSource(Source("ours", note="a number with no reason")))
    assert fill(text, ROOT, PAGE.name) != text


def test_an_unknown_group_of_settings_is_refused() -> None:
    with pytest.raises(UsageError, match=r"page, line 1: unknown group .* 'model\.imge': did you mean"):
        fill("<!-- table settings model.imge -->\n<!-- end of table -->", ROOT, "page")


def test_settings_are_listed_with_their_sources(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--settings", "--preset", "released", "batch_size=64", "seed=0"]) == 0
    # Other lines are headings and, four columns in, meanings.
    lines = [line for line in capsys.readouterr().out.splitlines() if "  # " in line]
    listed = dict(re.fullmatch(r"(\S+) +# [^;]+; (.+)", line).groups() for line in lines)
    assert listed["batch_size=64"] == "changed from 588"
    assert listed["weight_decay=1e-6"] == "supplement 2.4"
    assert listed["optimizer=adamw"] == "released code, train_prior.yaml:31"
    assert listed["model.sentence_decoder.causal=true"].startswith("released code, sentence.py")
    assert listed["seed=0"] == "ours"
    assert len(listed) == len(SOURCES)
